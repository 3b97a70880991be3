"""Quantises an ONNX model and serves it over HTTP.

    python serve.py MODEL.onnx [--weights int4x2] [--port 8000]

POST an array as .npy to /; the answer is the model's first output as .npy. One session answers all requests, each on the thread
that it came on. `--check` sends one request and ends.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fpxint


def packed(array: NDArray[Any]) -> bytes:
    """An array as the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def server(session: fpxint.InferenceSession, port: int) -> ThreadingHTTPServer:
    """A server of a session; port 0 takes one that is free."""
    (entry,) = session.get_inputs()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                array = np.load(io.BytesIO(body), allow_pickle=False)
                answer, status = packed(session.run(None, {entry.name: array})[0]), 200
            except (fpxint.Error, ValueError) as error:
                answer, status = str(error).encode(), 400
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def check(session: fpxint.InferenceSession, port: int) -> None:
    """Sends one request and holds the answer against the session's own."""
    (entry,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in entry.shape]
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", data=packed(x))
    with urllib.request.urlopen(request, timeout=60) as response:
        served = np.load(io.BytesIO(response.read()), allow_pickle=False)
    assert np.array_equal(served, session.run(None, {entry.name: x})[0])
    print(f"served {served.shape}, the same bits as from the session")


def main() -> None:
    """Quantises, loads and serves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model")
    parser.add_argument("--weights", default="int4x2")
    parser.add_argument("--activations", default="int4x2")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder) / "model.onnx"
        report = fpxint.quantize(
            arguments.model, artefact, weights=arguments.weights, activations=arguments.activations, progress=True
        )
        session = fpxint.InferenceSession(artefact, threads=1)
    print(report)
    with server(session, 0 if arguments.check else arguments.port) as serving:
        port = int(serving.server_address[1])
        if arguments.check:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            check(session, port)
            serving.shutdown()
        else:
            print(f"serving on http://127.0.0.1:{port}/")
            serving.serve_forever()


if __name__ == "__main__":
    main()

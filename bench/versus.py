"""Times fpxint against ONNX Runtime FP32 and INT8 and OpenVINO INT8, and puts the table into a document.

    versus.py PROGRAM DOCUMENT.md MODEL.onnx ...

PROGRAM is the `fpxint` command, built for release. The table replaces what lies between the marks in the document. The INT8 baseline of a model is ONNX Runtime's own static quantisation,
signed and per channel, with random calibration: one for speed, not for accuracy. OpenVINO runs the same file. All run in
turns, batch 1 or sequence 128, on one thread and on two; ours at int4x2 weights and activations. Ratios are medians over
rounds of the ratio within a round, so that a machine that drifts does not move them. Networks of one image input only.

Needs numpy, onnx, onnxruntime and openvino.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino
from onnxruntime import quantization

from machine import cpu

ROUNDS, RUNS = 7, 5
MARKS = ("<!-- measured -->", "<!-- /measured -->")
PRECISION = ["--weights", "int4x2", "--activations", "int4x2"]


def image(port):
    """Normal noise for an image input."""
    shape = [size if isinstance(size, int) and size > 0 else 1 if axis == 0 else 224 for axis, size in enumerate(port.shape)]
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


class Calibration(quantization.CalibrationDataReader):
    """A few random images."""

    def __init__(self, name, value):
        self.feeds = iter([{name: value}] * 2)

    def get_next(self):
        return next(self.feeds, None)


def quantised(model, folder):
    """The INT8 baseline of a model."""
    prepared, path = folder / "prepared.onnx", folder / "int8.onnx"
    quantization.shape_inference.quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    port = ort.InferenceSession(str(prepared), providers=["CPUExecutionProvider"]).get_inputs()[0]
    kinds = quantization.QuantType
    quantization.quantize_static(str(prepared), str(path), Calibration(port.name, image(port)), per_channel=True,
                                 activation_type=kinds.QUInt8, weight_type=kinds.QInt8)
    return path


def onnx_runtime(path, threads):
    """A call of ONNX Runtime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {port.name: image(port) for port in session.get_inputs()}
    return lambda: session.run(None, feed)


def open_vino(path, threads, value):
    """A call of OpenVINO."""
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    return lambda: request.infer([value])


def median(call):
    """Milliseconds of a call, the median of some; then a pause in which its threads stop to spin, which would slow the next."""
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    time.sleep(0.05)
    return statistics.median(times)


def ours(program, model, threads):
    """Milliseconds of `fpxint bench`."""
    command = [program, "bench", model, *PRECISION, "--threads", threads, "--runs", RUNS, "--json", "--quiet"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return report["latency_ms"]["median"], report["kernel"]


def compare(program, model, int8, threads):
    """Our milliseconds, and the ratios of the others' to ours."""
    fp32 = onnx_runtime(model, threads)
    value = image(ort.InferenceSession(str(model), providers=["CPUExecutionProvider"]).get_inputs()[0])
    calls = [fp32, onnx_runtime(int8, threads), open_vino(int8, threads, value)]
    rounds = []
    for _ in range(ROUNDS):
        own, kernel = ours(program, model, threads)
        rounds.append([own, *(median(call) / own for call in calls)])
    return [statistics.median(column) for column in zip(*rounds)], kernel


def main():
    if len(sys.argv) < 4:
        print("usage: versus.py PROGRAM DOCUMENT.md MODEL.onnx ...", file=sys.stderr)
        return 2
    program, out, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    rows, kernels = [], set()
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            int8 = quantised(model, Path(folder))
            for threads in (1, 2):
                (own, fp32, runtime, vino), kernel = compare(program, model, int8, threads)
                kernels.add(kernel)
                rows.append(f"| {model.stem} | {threads} | {own:.2f} | {fp32:.2f} | {runtime:.2f} | {vino:.2f} |")
                print(rows[-1], flush=True)
    lines = [
        "| network | threads | fpxint, ms | over ONNX Runtime FP32 | over ONNX Runtime INT8 | over OpenVINO INT8 |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        f"{cpu()}, kernel {', '.join(sorted(kernels))}; ONNX Runtime {ort.__version__}, OpenVINO {openvino.__version__}; "
        f"batch 1, int4x2 weights and activations; medians of {ROUNDS} rounds of {RUNS} runs in turns.",
    ]
    before, rest = out.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    out.write_text(before + "\n".join([MARKS[0], *lines, MARKS[1]]) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())

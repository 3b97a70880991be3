"""Times ONNX Runtime on artefacts against the FP32 models they were made from.

    latency.py PROGRAM MODEL.onnx ...

PROGRAM is the `fpxint` command. Each model is quantized to int4x2; then ONNX Runtime runs, on one thread and in turns: the FP32
model, the artefact, and the artefact with the session setting `session.disable_quant_qdq` = 1, which lets it sum the terms once
at load instead of at every run. The fastest of the runs counts. Needs onnx, onnxruntime and numpy.
"""

import sys
import tempfile
import time
from pathlib import Path

import onnxruntime as ort

import artefacts

RUNS = 10


def session(path, fold=False):
    """A session of one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if fold:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def fastest(sessions, feed):
    """Milliseconds of each session at its fastest."""
    times = [[] for _ in sessions]
    for _ in range(RUNS + 1):
        for runner, taken in zip(sessions, times):
            start = time.perf_counter()
            runner.run(None, feed)
            taken.append(1e3 * (time.perf_counter() - start))
    return [min(taken[1:]) for taken in times]


def main():
    if len(sys.argv) < 3:
        print("usage: latency.py PROGRAM MODEL.onnx ...", file=sys.stderr)
        return 2
    program, *models = sys.argv[1:]
    print(f"{'model':24}  FP32 ms  artefact  summed at load")
    for model in map(Path, models):
        with tempfile.TemporaryDirectory() as folder:
            artefact = Path(folder) / "artefact.onnx"
            artefacts.fpxint(program, "quantize", model, "-o", artefact)
            sessions = [session(model), session(artefact), session(artefact, fold=True)]
            full, plain, folded = fastest(sessions, artefacts.inputs(sessions[0]))
        print(f"{model.name:24}  {full:7.1f}  {plain / full:7.2f}x  {folded / full:13.2f}x")
    return 0


if __name__ == "__main__":
    sys.exit(main())

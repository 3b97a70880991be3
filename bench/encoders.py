"""Times encoders, ours against ONNX Runtime FP32 and dynamic INT8, by length, batch and threads; puts the table into a document.

    encoders.py PROGRAM DOCUMENT.md MODEL.onnx ...

PROGRAM is the `fpxint` command, built for release. The table replaces what lies between the marks in the document. The INT8
baseline is ONNX Runtime's own dynamic quantisation, signed. All run in turns on random tokens without padding; ours at int4x2
weights and activations. Ratios are medians over rounds of the ratio within a round, so that a machine that drifts does not move
them. Models whose inputs are tokens only; those of one image input are left to `versus.py`.

Needs numpy, onnx and onnxruntime.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnxruntime import quantization

from machine import cpu
from turns import ROUNDS, RUNS, compare, onnx_runtime, ours, ports, write

MARKS = ("<!-- encoders -->", "<!-- /encoders -->")
# Threads, sequence, batch.
CASES = [(1, 128, 1), (2, 128, 1), (1, 16, 1), (1, 64, 1), (1, 256, 1), (1, 512, 1), (1, 128, 8)]


def tokens(port, batch, sequence):
    """Tokens, a mask of ones, or one segment."""
    shape = (batch, sequence)
    if "mask" in port.name:
        return np.ones(shape, np.int64)
    return np.zeros(shape, np.int64) if "type" in port.name else np.random.default_rng(0).integers(0, 30000, shape)


def main():
    if len(sys.argv) < 4:
        print("usage: encoders.py PROGRAM DOCUMENT.md MODEL.onnx ...", file=sys.stderr)
        return 2
    program, out, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    models = [model for model in models if len(ports(model)) > 1]
    rows, kernels = [], set()
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            int8 = Path(folder) / "int8.onnx"
            quantization.quantize_dynamic(str(model), str(int8), weight_type=quantization.QuantType.QInt8)
            for threads, sequence, batch in CASES:
                feed = {port.name: tokens(port, batch, sequence) for port in ports(model)}
                calls = [onnx_runtime(path, threads, feed) for path in (model, int8)]
                own = lambda: ours(program, model, threads, "--sequence", sequence, "--batch", batch)
                (time, fp32, runtime), kernel = compare(own, calls)
                kernels.add(kernel)
                rows.append(f"| {model.stem} | {threads} | {sequence} | {batch} | {time:.2f} | {fp32:.2f} | {runtime:.2f} |")
                print(rows[-1], flush=True)
    if rows:
        write(out, MARKS, [
            "| encoder | threads | tokens | batch | fpxint, ms | over ONNX Runtime FP32 | over ONNX Runtime dynamic INT8 |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"{cpu()}, kernel {', '.join(sorted(kernels))}; ONNX Runtime {ort.__version__}; int4x2 weights and activations; "
            f"medians of {ROUNDS} rounds of {RUNS} runs in turns.",
        ])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Times fpxint against ONNX Runtime FP32 and INT8 and OpenVINO INT8, and puts the table into a document.

    versus.py PROGRAM DOCUMENT.md MODEL.onnx ...

PROGRAM is the `fpxint` command, built for release. The table replaces what lies between the marks in the document. The INT8
baseline of a model is ONNX Runtime's own static quantisation, signed and per channel, with random calibration: one for speed,
not for accuracy. OpenVINO runs the same file. All run in turns, batch 1, on one thread and on two; ours at int4x2 weights and
activations. Ratios are medians over rounds of the ratio within a round, so that a machine that drifts does not move them.
Networks of one image input only; models with other inputs are left to `encoders.py`.

Needs numpy, onnx, onnxruntime and openvino.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino
from onnxruntime import quantization

from machine import cpu
from turns import ROUNDS, RUNS, compare, onnx_runtime, ours, ports, write

MARKS = ("<!-- measured -->", "<!-- /measured -->")


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
    [port] = ports(prepared)
    kinds = quantization.QuantType
    quantization.quantize_static(str(prepared), str(path), Calibration(port.name, image(port)), per_channel=True,
                                 activation_type=kinds.QUInt8, weight_type=kinds.QInt8)
    return path


def open_vino(path, threads, value):
    """A call of OpenVINO."""
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    return lambda: request.infer([value])


def main():
    if len(sys.argv) < 4:
        print("usage: versus.py PROGRAM DOCUMENT.md MODEL.onnx ...", file=sys.stderr)
        return 2
    program, out, models = Path(sys.argv[1]).resolve(), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]]
    models = [model for model in models if len(ports(model)) == 1]
    rows, kernels = [], set()
    for model in models:
        [port] = ports(model)
        feed = {port.name: image(port)}
        with tempfile.TemporaryDirectory() as folder:
            int8 = quantised(model, Path(folder))
            for threads in (1, 2):
                calls = [onnx_runtime(path, threads, feed) for path in (model, int8)]
                calls.append(open_vino(int8, threads, feed[port.name]))
                (own, fp32, runtime, vino), kernel = compare(lambda: ours(program, model, threads), calls)
                kernels.add(kernel)
                rows.append(f"| {model.stem} | {threads} | {own:.2f} | {fp32:.2f} | {runtime:.2f} | {vino:.2f} |")
                print(rows[-1], flush=True)
    if rows:
        write(out, MARKS, [
            "| network | threads | fpxint, ms | over ONNX Runtime FP32 | over ONNX Runtime INT8 | over OpenVINO INT8 |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"{cpu()}, kernel {', '.join(sorted(kernels))}; ONNX Runtime {ort.__version__}, OpenVINO {openvino.__version__}; "
            f"batch 1, int4x2 weights and activations; medians of {ROUNDS} rounds of {RUNS} runs in turns.",
        ])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Times matrix products of bytes, ours against ONNX Runtime's MatMulInteger, and puts the table into a document.

    gemm.py PROGRAM DOCUMENT.md

PROGRAM is the example `gemm` of the kernels, built for release. The table replaces what lies between the marks in the document.
Unsigned by signed bytes, the signed ones constant and packed before; one thread. Ours ends with its epilogue, which makes
floats of the sums; MatMulInteger ends with the 32-bit sums. Both run in turns; figures are medians over rounds, ratios medians
of the ratio within a round, so that a machine that drifts does not move them. The peak is that of our kernel on operands in
the first-level cache, measured in every round.

Needs numpy, onnx and onnxruntime.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from machine import cpu
from turns import write

ROUNDS, RUNS = 9, 30
MARKS = ("<!-- gemm -->", "<!-- /gemm -->")
SIZES = [(1024, 1024, 1024), (128, 768, 3072), (128, 3072, 768), (128, 768, 768)]


def matmul_integer(m, k, n):
    """A call of ONNX Runtime."""
    random = np.random.default_rng(0)
    weights = onnx.numpy_helper.from_array(random.integers(-127, 128, (k, n)).astype(np.int8), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "gemm",
        [value("x", onnx.TensorProto.UINT8, [m, k])], [value("y", onnx.TensorProto.INT32, [m, n])], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = 1, 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": random.integers(0, 256, (m, k)).astype(np.uint8)}
    return lambda: session.run(None, feed)


def throughput(call, macs):
    """Multiply-accumulates in 1e9 a second, the median over some calls."""
    for _ in range(3):
        call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return macs / statistics.median(times) / 1e9


def ours(program, sizes):
    """What the example says of our product."""
    done = subprocess.run([str(part) for part in (program, *sizes, RUNS)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    if len(sys.argv) != 3:
        print("usage: gemm.py PROGRAM DOCUMENT.md", file=sys.stderr)
        return 2
    program, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    rows = []
    for sizes in SIZES:
        call, macs, rounds = matmul_integer(*sizes), np.prod(sizes, dtype=float), []
        for _ in range(ROUNDS):
            report = ours(program, sizes)
            own, peak, other = report["gmacs_per_second"], report["peak_gmacs_per_second"], throughput(call, macs)
            rounds.append((own, 100 * own / peak, other, own / other))
        own, share, other, ratio = (statistics.median(column) for column in zip(*rounds))
        rows.append(f"| {' x '.join(map(str, sizes))} | {own:.0f} | {share:.0f} % | {other:.0f} | {ratio:.2f} |")
        print(rows[-1], flush=True)
    lines = [
        "| m x k x n | fpxint, GMAC/s | of peak | ONNX Runtime MatMulInteger, GMAC/s | ratio |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"{cpu()}, kernel {report['kernel']}; ONNX Runtime {ort.__version__}; one thread; medians of {ROUNDS} rounds of {RUNS} runs in turns.",
    ]
    write(out, MARKS, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Quantizes models and holds the artefacts against ONNX's checker and ONNX Runtime.

    artefacts.py PROGRAM [MODEL.onnx ...]

PROGRAM is the `fpxint` command. Without models: assets/digits.onnx of this repository, the encoders of encoders.py and, where
the environment variable FPXINT_ASSETS names a folder, every .onnx file below it. Each model is quantized at several precisions of the weights and by the planner, and
for each artefact:

* one thread and two write the same bytes;
* onnx.checker accepts it, shape inference included;
* ONNX Runtime runs it, and the weight that it sums from the terms of each layer is `Q * scale_n` rounded once to float32, bit
  for bit, with graph optimisations and without. `Q` and the product in float64 come from the stored terms;
* `fpxint run` with 16-bit activations is within 2e-3 of ONNX Runtime on the same artefact, relative to the largest output.

The last column of figures compares ONNX Runtime on the artefact with ONNX Runtime on the FP32 model, and is for information.
Needs onnx, onnxruntime and numpy. Exit code 1 if a check fails, 2 on bad use.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

import encoders

# Goals of the planner, whose layers differ in their precisions.
GOALS = ("target-products=1.5", "target-bits=5")
# Precision, then flags: `group:` and a number is a granularity, `sum` a rounding, `mse` and `laplace` a clip, `asymmetric` a symmetry,
# `hadamard` a rotation.
PRECISIONS = ("int4x2", "int4x3", "int2x3", "int8x1", "int8x2", "int4x1 group:16", "int2x3 group:8", "int8x1 group:32",
              "int4x1 sum mse", "int2x4 laplace", "int2x2 mse", "int4x2 asymmetric", "int4x1 asymmetric mse", "int2x3 asymmetric",
              "int4x2 hadamard")
FLAGS = {"sum": "--rounding", "mse": "--clip", "laplace": "--clip", "asymmetric": "--symmetry",
         "hadamard": "--rotation"}
ACTIVATIONS = "int8x2"
TOLERANCE = 2e-3
WEIGHT = re.compile(r"fpxint\d*/\d+/weight")
COLUMNS = ("model", "weights", "terms", "opset", "bytes", "layers", "1 = 2 threads", "checker", "sums", "sums, plain",
           "run vs ORT", "ORT vs FP32", "verdict")
TEXT_COLUMNS = 3


class Failure(Exception):
    """A check that does not hold."""


def fpxint(program, *arguments):
    """Runs the command and returns the JSON object it prints."""
    done = subprocess.run([program, *map(str, arguments), "--json", "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"fpxint {arguments[0]}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def session(model, optimised=True):
    """A session of one thread on serialised bytes."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Otherwise it multiplies INT4 weights in blocks with activations that it rounds to eight bits.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def inputs(runner):
    """Noise for every input, the same at every call: normal, or token numbers. Open sizes are two images of 224 pixels a
    side, or two sentences of sixteen tokens whose mask is one and whose segment is zero."""
    noise = np.random.default_rng(20)
    made = {}
    for port in runner.get_inputs():
        if port.type not in ("tensor(float)", "tensor(int64)"):
            raise Failure(f"input {port.name} is a {port.type}, but only float and int64 inputs are made here")
        tokens = port.type == "tensor(int64)"
        length = 16 if tokens else 224
        shape = [size if isinstance(size, int) else 2 if axis == 0 else length for axis, size in enumerate(port.shape)]
        if not tokens:
            made[port.name] = noise.standard_normal(shape).astype(np.float32)
        elif "mask" in port.name or "type" in port.name:
            made[port.name] = np.full(shape, int("mask" in port.name), np.int64)
        else:
            made[port.name] = noise.integers(0, 1000, shape)
    return made


def terms(graph, weight):
    """The terms and scales that sum to a weight, first to last: `(digits, scale)`, each as the artefact stores it, and the bias
    of asymmetric weights. The first has the saturation part, which is on its grid."""
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    sparse = dict(saturation_parts(graph))
    constants.update((name, dense(tensor)) for name, tensor in sparse.items())
    found = []
    while weight in makers and makers[weight].op_type == "Add":
        weight, last = makers[weight].input
        found.append(last)
    found.append(weight)
    bias = sum(constants[name].astype(np.float64) for name in found if name in constants)
    found = [name for name in found if name not in constants]
    parts = [term(makers, constants, name) for name in reversed(found)]
    first = makers[found[-1]]
    stored = makers[first.input[0]].input[0] if first.op_type == "Mul" else first.input[0]
    if stored in sparse:
        (beyond, scale), (first, same), *rest = parts
        if not np.array_equal(scale, same):
            raise Failure(f"the saturation part of {weight} is on another grid than the first term")
        parts = [(beyond + first, scale), *rest]
    return parts, bias


def saturation_parts(graph):
    """Sparse tensors by name: initialisers, and values of Constant nodes."""
    for tensor in graph.sparse_initializer:
        yield tensor.values.name, tensor
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "sparse_value":
                yield node.output[0], attribute.sparse_tensor


def dense(sparse):
    """A sparse tensor, its zeros filled in."""
    values = np.zeros(list(sparse.dims), np.int64)
    values.reshape(-1)[numpy_helper.to_array(sparse.indices)] = numpy_helper.to_array(sparse.values)
    return values


def term(makers, constants, name):
    """One summand: DequantizeLinear(digits, scale), or Mul(Cast(digits), scale)."""
    node = makers[name]
    stored, scale = node.input
    if node.op_type == "Mul":
        stored = makers[stored].input[0]
    elif node.op_type != "DequantizeLinear":
        raise Failure(f"{name} is made by {node.op_type}")
    digits = constants[stored].astype(np.int64)
    scale = constants[scale]
    axis, block = (next((a.i for a in node.attribute if a.name == name), default)
                   for name, default in (("axis", 1), ("block_size", 0)))
    if block:
        scale = np.repeat(scale, block, axis)[tuple(slice(size) for size in digits.shape)]
    elif node.op_type == "DequantizeLinear" and scale.ndim == 1:
        scale = scale.reshape([-1 if i == axis % digits.ndim else 1 for i in range(digits.ndim)])
    return digits, scale


def bits_of(parts):
    """Bits of a term: those that its scales fall by; of a single term, none are needed."""
    if len(parts) == 1:
        return 0
    (_, first), (_, second) = parts[:2]
    used = second != 0
    return int(np.log2(np.max(first[used] / second[used]))) if used.any() else 0


def expected(graph, weight):
    """`Q * scale_n + bias` in float64, rounded once."""
    parts, bias = terms(graph, weight)
    bits = bits_of(parts)
    q = sum(digits << bits * (len(parts) - 1 - i) for i, (digits, _) in enumerate(parts))
    return (q.astype(np.float64) * parts[-1][1].astype(np.float64) + bias).astype(np.float32)


def wrong_sums(model, feed, optimised):
    """Weights whose sum in ONNX Runtime is not the expected one, and how many there are in all."""
    names = [output for node in model.graph.node for output in node.output if WEIGHT.fullmatch(output)]
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    exposed.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    found = session(exposed.SerializeToString(), optimised).run(names, feed)
    same = (np.array_equal(f.view(np.uint32), expected(model.graph, n).view(np.uint32))
            for f, n in zip(found, names))
    return [name for name, equal in zip(names, same) if not equal], len(names)


def relative(wanted, found):
    """The largest difference over all outputs, relative to the largest value of its output."""
    return max(float(np.abs(w - f).max() / np.abs(w).max()) for w, f in zip(wanted, found, strict=True))


def ran(program, path, feed, folder):
    """Outputs of `fpxint run` with 16-bit activations, in the model's order."""
    arguments = []
    for i, (name, array) in enumerate(feed.items()):
        np.save(folder / f"in{i}.npy", array)
        arguments += ["-i", f"{name}={folder / f'in{i}.npy'}"]
    report = fpxint(program, "run", path, *arguments, "-o", folder / "out", "--activations", ACTIVATIONS)
    return [np.load(folder / "out" / (o["name"].replace("/", "_") + ".npy")) for o in report["outputs"]]


def examine(program, source, weights, folder):
    """A row of the table, and what does not hold."""
    faults = []
    precision, *flags = weights.split()
    chosen = [f"--{weights}"] if weights in GOALS else ["--weights", precision]
    options = [*chosen, *(part for flag in flags for part in (FLAGS.get(flag, "--granularity"), flag))]
    paths = [folder / f"{threads}.onnx" for threads in (1, 2)]
    for threads, path in zip((1, 2), paths):
        report = fpxint(program, "quantize", source, "-o", path, *options, "--threads", threads)
    written = paths[0].read_bytes()
    same = written == paths[1].read_bytes()
    model = onnx.load_from_string(written)

    def check(holds, fault):
        if not holds:
            faults.append(fault)
        return "yes" if holds else "NO"

    row = [source.name, weights, report["storage"], report["opset"], len(written), len(report["layers"]),
           check(same, "one thread and two write different bytes")]
    try:
        onnx.checker.check_model(model, full_check=True)
        row.append(check(True, ""))
    except Exception as error:  # The checker raises several kinds.
        row.append(check(False, "the checker: " + str(error).strip().splitlines()[0]))
    runner = session(written)
    feed = inputs(runner)
    for optimised in (True, False):
        wrong, count = wrong_sums(model, feed, optimised)
        exact = not wrong and count == len(report["layers"])
        how = "with" if optimised else "without"
        fault = f"{how} optimisations {len(wrong)} of {count} sums are inexact ({', '.join(wrong[:3])})"
        row.append(check(exact, fault if wrong else f"{count} sums for {len(report['layers'])} layers"))
    wanted = runner.run(None, feed)
    try:
        difference = relative(wanted, ran(program, paths[0], feed, folder))
        row.append(f"{difference:.1e}")
        if not difference < TOLERANCE:
            faults.append(f"fpxint run is {difference:.1e} from ONNX Runtime")
    except Failure as failure:
        row.append("-")
        faults.append(str(failure))
    reference = session(source.read_bytes()).run(None, feed)
    row.append(f"{relative(reference, wanted):.1e}")
    return row, faults


def table(rows):
    """Columns that align: text to the left, figures to the right."""
    rows = [COLUMNS, *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        cells = (cell.ljust(w) if i < TEXT_COLUMNS else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        yield "  ".join(cells).rstrip()


def models(given, folder):
    """The models to quantize; `folder` takes those made here."""
    if given:
        return [Path(name) for name in given]
    found = [Path(__file__).resolve().parents[2] / "assets" / "digits.onnx"]
    for opset, gelu in encoders.KINDS:
        found.append(folder / f"encoder_{opset}_{gelu}.onnx")
        onnx.save(encoders.encoder(opset, gelu), found[-1])
    if os.environ.get("FPXINT_ASSETS"):
        found += sorted(Path(os.environ["FPXINT_ASSETS"]).rglob("*.onnx"))
    else:
        print("FPXINT_ASSETS is not set: only digits.onnx and the encoders are checked", file=sys.stderr)
    return found


def main():
    if len(sys.argv) < 2:
        print("usage: artefacts.py PROGRAM [MODEL.onnx ...]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        return check(str(Path(sys.argv[1]).resolve()), models(sys.argv[2:], Path(folder)))


def check(program, sources):
    """Prints the table of all checks; 1 if one fails."""
    rows, told = [], []
    for source in sources:
        for weights in (*PRECISIONS, *GOALS):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row, faults = examine(program, source, weights, Path(folder))
                except Failure as failure:
                    row, faults = [source.name, weights, *"-" * (len(COLUMNS) - 3)], [str(failure)]
                except Exception as error:  # ONNX Runtime raises several kinds.
                    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                    row, faults = [source.name, weights, *"-" * (len(COLUMNS) - 3)], [reason]
            rows.append([*row, "FAILED" if faults else "ok"])
            told += [f"FAILED {source.name} {weights}: {fault}" for fault in faults]
    failed = sum(row[-1] != "ok" for row in rows)
    print("\n".join([*table(rows), *told, f"{len(rows) - failed} passed, {failed} failed"]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

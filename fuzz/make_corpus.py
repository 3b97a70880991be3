"""Writes the first inputs of the corpus: small models, artefacts and arrays of every kind that the readers know.

    python make_corpus.py

Needs fpxint, onnx and numpy. What mutations found since is beside them under names of its own.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import fpxint

CORPUS = Path(__file__).parent / "corpus"


def weights(*shape, dtype=np.float32):
    return (np.sin(np.arange(np.prod(shape)) * 1.7).reshape(shape) * 0.5 + 0.01).astype(dtype)


def model(nodes, constants, x=(2, 3, 6, 6), kind=TensorProto.FLOAT, opset=13, extra=(), y=None):
    tensors = [v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(v, n) for n, v in constants.items()]
    inputs = [helper.make_tensor_value_info("x", kind, list(x)), *extra]
    outputs = [helper.make_tensor_value_info("y", kind, y)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def models():
    node = helper.make_node
    conv = node("Conv", ["x", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1])
    stats = {f"s{i}": weights(4) ** 2 + 1 for i in range(4)}
    yield "conv", model(
        [conv, node("BatchNormalization", ["c", *stats], ["n"]), node("Relu", ["n"], ["y"])],
        {"w": weights(4, 3, 3, 3), "b": weights(4), **stats},
    )
    yield "depthwise", model(
        [node("Conv", ["x", "w"], ["c"], group=3, kernel_shape=[3, 3]), node("Clip", ["c", "lo", "hi"], ["y"])],
        {"w": weights(3, 1, 3, 3), "lo": np.float32(0), "hi": np.float32(6)},
    )
    yield "gemm", model(
        [node("Gemm", ["x", "w", "b"], ["y"], "gemm", transB=1, alpha=0.5)],
        {"w": weights(3, 5), "b": weights(3)},
        x=("n", 5),
        opset=9,
    )
    yield "product", model(
        [node("Transpose", ["v"], ["w"]), node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])],
        {"v": weights(4, 6), "c": weights(4)},
        x=("n", 6),
    )
    # Deep enough to be rotated, and read twice.
    both = [node("MatMul", ["x", "w"], ["a"], "a"), node("MatMul", ["x", "v"], ["b"], "b"), node("Add", ["a", "b"], ["y"])]
    yield "products", model(both, {"w": weights(16, 2), "v": weights(16, 2) * 2}, x=("n", 16))
    yield "half", model(
        [node("MatMul", ["x", "w"], ["y"])], {"w": weights(6, 4, dtype=np.float16)}, x=(2, 6), kind=TensorProto.FLOAT16
    )
    bfloat = helper.make_tensor("w", TensorProto.BFLOAT16, [6, 4], weights(6, 4).ravel())
    yield "bfloat", model([node("MatMul", ["x", "w"], ["y"])], {"w": bfloat}, x=(2, 6), kind=TensorProto.BFLOAT16)
    typed = helper.make_tensor("w", TensorProto.DOUBLE, [6, 4], weights(6, 4).astype(np.float64).ravel())
    yield "double", model([node("MatMul", ["x", "w"], ["y"])], {"w": typed}, x=(2, 6), kind=TensorProto.DOUBLE)
    constant = node("Constant", [], ["w"], value=numpy_helper.from_array(weights(6, 4), "value"))
    yield "constant", model([constant, node("MatMul", ["x", "w"], ["y"])], {}, x=(2, 6))
    body = helper.make_graph(
        [node("MatMul", ["x", "w"], ["then"])], "then", [], [helper.make_tensor_value_info("then", 1, None)]
    )
    other = helper.make_graph(
        [node("Mul", ["x", "x"], ["else"])], "else", [], [helper.make_tensor_value_info("else", 1, None)]
    )
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    yield "branch", model(
        [node("If", ["flag"], ["y"], then_branch=body, else_branch=other)], {"w": weights(6, 6)}, x=(2, 6), extra=[flag]
    )
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([1.5, -2], np.float32), "w"),
        numpy_helper.from_array(np.array([3, 9], np.int64), "w_indices"),
        [6, 4],
    )
    holder = model([node("MatMul", ["x", "w"], ["y"])], {}, x=(2, 6))
    holder.graph.sparse_initializer.append(sparse)
    yield "sparse", holder
    wide, half = 4, np.float32(0.5)
    yield "attention", model(
        [
            *(node("MatMul", ["x", n], [n + "x"], n) for n in "qkv"),
            node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
            node("MatMul", ["qx", "kt"], ["raw"]),
            node("Mul", ["raw", "half"], ["scaled"]),
            node("Softmax", ["scaled"], ["p"], axis=-1),
            node("MatMul", ["p", "vx"], ["y"]),
        ],
        {**{n: weights(wide, wide) for n in "qkv"}, "half": half},
        x=("n", "s", wide),
        y=("n", "s", wide),
    )
    yield "pads", model(
        [
            node("Pad", ["x", "p"], ["h"]),
            node("Conv", ["h", "w"], ["c"], strides=[2, 2], dilations=[2, 1]),
            node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0),
            node("Squeeze", ["m"], ["y"]),
        ],
        {"w": weights(2, 3, 2, 2), "p": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )


def artefacts():
    chosen = {"conv": {}, "gemm": {}, "product": {}, "half": {}, "attention": {}, "depthwise": {}}
    settings = {
        "int4x2": {"weights": "int4x2"},
        "int2x3": {"weights": "int2x3"},
        "int8x1": {"weights": "int8x1", "granularity": "tensor"},
        "group": {"weights": "int4x1", "granularity": "group:2"},
        "clip": {"weights": "int4x1", "clip": "mse", "rounding": "sum"},
    }
    given = dict(models())
    for i, name in enumerate(chosen):
        for j, (label, arguments) in enumerate(settings.items()):
            if (i + j) % 2 == 0 or name == "product":
                path = CORPUS / "artefact" / f"{name}-{label}"
                fpxint.quantize(given[name], path, activations="int4x2", **arguments)
    # A long tail, so that something lies beyond the clip.
    values = weights(16, 40)
    values[::8, ::20] *= 30
    heavy = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": values.T.copy()}, x=("n", 40))
    fpxint.quantize(heavy, CORPUS / "artefact" / "saturation", weights="int4x1", activations="int4x2", clip="mse")
    # Far from zero, so that a bias stands beside the terms and what lies beyond them.
    off = model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": values.T + np.float32(0.5)}, x=("n", 40))
    ways = {"weights": "int4x1", "activations": "int4x2", "clip": "mse", "symmetry": "asymmetric"}
    fpxint.quantize(off, CORPUS / "artefact" / "asymmetric", **ways)
    ways = {"weights": "int4x2", "activations": "int4x2", "rotation": "hadamard"}
    fpxint.quantize(given["products"], CORPUS / "artefact" / "rotated", **ways)
    # As files from before have it, in INT32.
    older = onnx.load_from_string((CORPUS / "artefact" / "saturation").read_bytes())
    (part,) = [a.sparse_tensor.values for node in older.graph.node for a in node.attribute if a.name == "sparse_value"]
    part.data_type = TensorProto.INT32
    part.raw_data = np.frombuffer(part.raw_data, np.int8).astype(np.int32).tobytes()
    (CORPUS / "artefact" / "saturation-int32").write_bytes(older.SerializeToString())


def externals():
    for name, proto in models():
        if name in ("conv", "product", "gemm"):
            data = b""
            for tensor in proto.graph.initializer:
                raw, offset = tensor.raw_data, len(data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                for key, value in (("location", "w.bin"), ("offset", offset), ("length", len(raw))):
                    entry = tensor.external_data.add()
                    entry.key, entry.value = key, str(value)
                data += raw
            text = proto.SerializeToString()
            (CORPUS / "external" / name).write_bytes(struct.pack("<I", len(text)) + text + data)


def arrays():
    x = weights(3, 4)
    given = {
        "f32": x,
        "fortran": np.asfortranarray(x),
        "big": x.astype(">f4"),
        "scalar": np.float32(3),
        "empty": np.zeros((0, 3), np.float32),
        "i64": np.arange(6).reshape(2, 3),
        "u8": np.arange(5, dtype=np.uint8),
        "bool": np.array([True, False]),
    }
    for name, array in given.items():
        file = io.BytesIO()
        np.save(file, array)
        (CORPUS / "npy" / name).write_bytes(file.getvalue())
    file = io.BytesIO()
    np.lib.format.write_array(file, x, version=(3, 0))
    (CORPUS / "npy" / "version3").write_bytes(file.getvalue())


def texts():
    pair = 'weights = "int4x2", activations = "int4x2"'
    head = f"version = 1\ndefault = {{ {pair} }}\n"
    plans = {
        "plain": head + f'\n[layers]\n"Conv_1" = {{ {pair} }}\nfc = {{ weights = "int4x3", activations = "int8x2" }}\n',
        "quoted": head + f"[layers]\n\"a\\\"b\\\\\\u00e9\\n\" = {{ {pair} }}\n'c\"d' = {{ {pair} }}\na.b = {{ {pair} }}\n",
        "tables": f'version = 1\n[default]\n{pair.replace(", ", chr(10))}\n[layers.x]\n{pair.replace(", ", chr(10))}\n',
        "wrong": head.replace("1", "2"),
    }
    for name, text in plans.items():
        (CORPUS / "plan" / name).write_text(text)
    for i, text in enumerate(["int4x2", "int8x4", "int2x16", "fp32", "int004x002", "int9x1", "int4x0", "int4", "x", ""]):
        (CORPUS / "precision" / f"{i}").write_text(text)


for folder in ("onnx", "artefact", "external", "npy", "plan", "precision"):
    (CORPUS / folder).mkdir(parents=True, exist_ok=True)
for name, proto in models():
    (CORPUS / "onnx" / name).write_bytes(proto.SerializeToString())
artefacts()
externals()
arrays()
texts()

"""Small models for the tests."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights of a layer."""
    return np.random.default_rng(seed + sum(shape)).normal(0, 0.3, shape).astype(np.float32)


def images(count: int, size: int = 16) -> np.ndarray:
    """Images for `colour`."""
    return np.random.default_rng(count).normal(0, 1, (count, 3, size, size)).astype(np.float32)


def model(nodes, inputs, outputs, constants) -> onnx.ModelProto:
    """A model from its parts."""
    initialisers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initialisers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def colour(channels: int = 16, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """Convolutions, a pool and a matrix product, for batches of images; two outputs."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {
        "w1": weights(channels, 3, 3, 3).astype(dtype),
        "w2": weights(channels, channels, 3, 3).astype(dtype),
        "w3": weights(channels, 10).astype(dtype),
        "b3": weights(10).astype(dtype),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "second", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Add", ["c2", "c2"], ["d2"], "double"),
        helper.make_node("GlobalAveragePool", ["d2"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["features"], "flatten"),
        helper.make_node("Gemm", ["features", "w3", "b3"], ["scores"], "head"),
    ]
    x = helper.make_tensor_value_info("x", kind, ["batch", 3, "height", "width"])
    outputs = [
        helper.make_tensor_value_info("scores", kind, ["batch", 10]),
        helper.make_tensor_value_info("features", kind, ["batch", channels]),
    ]
    return model(nodes, [x], outputs, constants)


def encoder(words: int = 50, width: int = 16) -> onnx.ModelProto:
    """Embeddings, a layer and a mask; input_ids and attention_mask to last_hidden_state."""
    constants = {"table": weights(words, width), "w": weights(width, width), "one": np.array([2], dtype=np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["tokens"], "embedding"),
        helper.make_node("MatMul", ["tokens", "w"], ["hidden"], "layer"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "one"], ["wide"], "unsqueeze"),
        helper.make_node("Mul", ["hidden", "wide"], ["last_hidden_state"], "masked"),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
        for name in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", width])
    return model(nodes, ids, [output], constants)


def product(rows: int = 64, columns: int = 32, size: float = 1.0) -> onnx.ModelProto:
    """One matrix product by weights of some size."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", rows])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", columns])
    return model(nodes, [x], [y], {"w": (weights(rows, columns) * size).astype(np.float32)})


def deep(layers: int, width: int) -> onnx.ModelProto:
    """Many matrix products, one after another."""
    values = ["x", *(f"h{i}" for i in range(layers))]
    nodes = [
        helper.make_node("MatMul", [a, f"w{i}"], [b], f"layer{i}") for i, (a, b) in enumerate(zip(values, values[1:]))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", width])
    y = helper.make_tensor_value_info(values[-1], TensorProto.FLOAT, ["batch", width])
    return model(nodes, [x], [y], {f"w{i}": weights(width, width, seed=i) for i in range(layers)})

"""Small encoders as exporters write them: fused LayerNormalization and Gelu, a classifier tied to the embedding."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

TOKENS, WIDTH, HIDDEN = 1200, 32, 128
# Operator set, and how its GELU is spelt where it has one.
KINDS = ((17, None), (20, "none"), (20, "tanh"), (23, "none"))


def encoder(opset, gelu):
    """ids (batch, sequence) -> logits (batch, sequence, TOKENS): one feed-forward block between two normalisations."""
    noise = np.random.default_rng(opset)
    shapes = {"table": (TOKENS, WIDTH), "gain": (WIDTH,), "shift": (WIDTH,), "up": (WIDTH, HIDDEN), "up.bias": (HIDDEN,),
              "down": (HIDDEN, WIDTH)}
    tensors = [numpy_helper.from_array(0.2 * noise.standard_normal(shape).astype(np.float32), name)
               for name, shape in shapes.items()]
    make = helper.make_node
    nodes = [
        make("Gather", ["table", "ids"], ["words"]),
        make("LayerNormalization", ["words", "gain", "shift"], ["normed"], axis=-1, epsilon=1e-5),
        make("MatMul", ["normed", "up"], ["wide"], name="up"),
        make("Add", ["wide", "up.bias"], ["biased"]),
        make("Gelu", ["biased"], ["active"], approximate=gelu) if gelu else make("Relu", ["biased"], ["active"]),
        make("MatMul", ["active", "down"], ["narrow"], name="down"),
        make("Add", ["narrow", "normed"], ["summed"]),
        make("LayerNormalization", ["summed", "gain", "shift"], ["hidden"]),
        make("Transpose", ["table"], ["turned"], perm=[1, 0]),
        make("MatMul", ["hidden", "turned"], ["logits"], name="tied"),
    ]
    sizes = ["batch", "sequence"]
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, sizes)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [*sizes, TOKENS])
    graph = helper.make_graph(nodes, "encoder", [ids], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)

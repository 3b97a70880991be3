"""Writes a ViT-B/16 with seeded random weights as ONNX: `vit.py OUT.onnx`. For latency and memory, never for accuracy.

224 x 224 images, 12 blocks of width 768 with 12 heads, opset 17, open batch; as PyTorch exports timm's: patches by a
convolution, a class token, Q, K and V joined in one product, LayerNormalization as an operator, GELU written out.
Needs numpy and onnx.
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEADS, BLOCKS, INNER, PATCH, IMAGE, CLASSES = 768, 12, 12, 3072, 16, 224, 1000
TOKENS = (IMAGE // PATCH) ** 2 + 1


class Graph:
    def __init__(self):
        self.nodes, self.constants = [], []
        self.random = np.random.default_rng(16)

    def constant(self, name, array):
        array = np.asarray(array)
        self.constants.append(numpy_helper.from_array(array.astype(np.float32) if array.dtype == float else array, name))
        return name

    def noise(self, name, *shape, scale):
        return self.constant(name, self.random.standard_normal(shape) * scale)

    def op(self, kind, *inputs, outputs=1, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        made = [f"{name}_{i}" for i in range(outputs)] if outputs > 1 else [name]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, **attributes))
        return made if outputs > 1 else name

    def linear(self, x, name, inputs, outputs):
        weight = self.noise(f"{name}.weight", inputs, outputs, scale=inputs**-0.5)
        return self.op("Add", self.noise(f"{name}.bias", outputs, scale=0.02), self.op("MatMul", x, weight))

    def norm(self, x, name):
        scale = self.constant(f"{name}.weight", 1 + 0.1 * self.random.standard_normal(WIDTH))
        return self.op("LayerNormalization", x, scale, self.noise(f"{name}.bias", WIDTH, scale=0.02), axis=-1, epsilon=1e-6)

    def sizes(self, x, *axes):
        """Dimensions of `x`, each as a vector of one element."""
        shape = self.op("Shape", x)
        return [self.op("Unsqueeze", self.op("Gather", shape, f"at{axis}", axis=0), "axis0") for axis in axes]


def block(g, x, name):
    batch, tokens = g.sizes(x, 0, 1)
    qkv = g.linear(g.norm(x, f"{name}.norm1"), f"{name}.attn.qkv", WIDTH, 3 * WIDTH)
    qkv = g.op("Reshape", qkv, g.op("Concat", batch, tokens, "three", "heads", "head", axis=0))
    parts = g.op("Split", g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4]), outputs=3, axis=0)
    q, k, v = (g.op("Squeeze", part, "axis0") for part in parts)
    scores = g.op("MatMul", g.op("Mul", q, "scale"), g.op("Transpose", k, perm=[0, 1, 3, 2]))
    y = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    y = g.op("Reshape", y, g.op("Concat", batch, tokens, "width", axis=0))
    x = g.op("Add", x, g.linear(y, f"{name}.attn.proj", WIDTH, WIDTH))
    h = g.linear(g.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1", WIDTH, INNER)
    gate = g.op("Add", g.op("Erf", g.op("Div", h, "sqrt2")), "one")
    h = g.op("Mul", g.op("Mul", h, gate), "half")
    return g.op("Add", x, g.linear(h, f"{name}.mlp.fc2", INNER, WIDTH))


def vit():
    g = Graph()
    for name, value in dict(at0=0, at1=1, axis0=[0], three=[3], heads=[HEADS], head=[WIDTH // HEADS], width=[WIDTH],
                            patches=[0, WIDTH, -1], token=[1, WIDTH]).items():
        g.constant(name, np.array(value, np.int64))
    for name, value in dict(sqrt2=2**0.5, one=1.0, half=0.5, scale=(WIDTH // HEADS) ** -0.5).items():
        g.constant(name, np.float32(value))
    weight = g.noise("patch_embed.weight", WIDTH, 3, PATCH, PATCH, scale=(3 * PATCH**2) ** -0.5)
    x = g.op("Conv", "image", weight, g.noise("patch_embed.bias", WIDTH, scale=0.02), kernel_shape=[PATCH, PATCH],
             strides=[PATCH, PATCH])
    x = g.op("Transpose", g.op("Reshape", x, "patches"), perm=[0, 2, 1])
    token = g.op("Expand", g.noise("cls_token", 1, 1, WIDTH, scale=0.02), g.op("Concat", *g.sizes(x, 0), "token", axis=0))
    x = g.op("Add", g.op("Concat", token, x, axis=1), g.noise("pos_embed", 1, TOKENS, WIDTH, scale=0.02))
    for i in range(BLOCKS):
        x = block(g, x, f"blocks.{i}")
    x = g.op("Gather", g.norm(x, "norm"), "at0", axis=1)
    weight = g.noise("head.weight", CLASSES, WIDTH, scale=WIDTH**-0.5)
    g.nodes.append(helper.make_node("Gemm", [x, weight, g.noise("head.bias", CLASSES, scale=0.02)], ["logits"],
                                    name="head", transB=1))
    graph = helper.make_graph(
        g.nodes, "vit_b16", [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, IMAGE, IMAGE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])], g.constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    model = vit()
    onnx.checker.check_model(model)
    onnx.save(model, sys.argv[1])

"""Fuses small models in the styles of many exporters and compares them, before and after.

    fuse_cases.py PROGRAM [NAME]

PROGRAM is called as `PROGRAM IN OUT`. The model before runs in ONNX Runtime; the fused one in onnx's reference evaluator,
which is taught the nodes of domain `fpxint` here, by their definitions in numpy. Outputs must agree within 1e-5, and there
must be exactly the fused nodes that a case states: none where a case is a near miss. With NAME, only cases whose name
contains it. Needs onnx, onnxruntime and numpy. Exit code 1 if a case fails.
"""

import collections
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

CASES = []
SQRT2, TANH_SCALE = math.sqrt(2), math.sqrt(2 / math.pi)
erf = np.vectorize(math.erf, otypes=[np.float64])


class FpxLayerNorm(OpRun):
    op_domain = "fpxint"

    def _run(self, x, scale, bias=None, epsilon=None):
        assert scale.shape == x.shape[-1:] and (bias is None or bias.shape == scale.shape)
        d = x - x.mean(-1, keepdims=True)
        y = d / np.sqrt((d * d).mean(-1, keepdims=True) + np.float32(epsilon)) * scale
        return ((y if bias is None else y + bias).astype(np.float32),)


class FpxRmsNorm(OpRun):
    op_domain = "fpxint"

    def _run(self, x, scale, epsilon=None):
        assert scale.shape == x.shape[-1:]
        return ((x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(epsilon)) * scale).astype(np.float32),)


class FpxGelu(OpRun):
    op_domain = "fpxint"

    def _run(self, x, approximate=None):
        x = x.astype(np.float64)
        gate = {"none": lambda: erf(x / SQRT2), "tanh": lambda: np.tanh(TANH_SCALE * (x + 0.044715 * x**3))}[approximate]()
        return ((x / 2 * (1 + gate)).astype(np.float32),)


class FpxSilu(OpRun):
    op_domain = "fpxint"

    def _run(self, x):
        return (x / (1 + np.exp(-x)),)


class FpxAttention(OpRun):
    op_domain = "fpxint"

    def _run(self, q, k, v, mask=None, heads=None, scale=None):
        def cut(x):
            return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

        assert q.ndim == k.ndim == v.ndim == 3
        scores = cut(q) @ cut(k).transpose(0, 1, 3, 2) * np.float32(scale)
        if mask is not None:
            assert mask.dtype == np.float32
            shape, scores = scores.shape, scores + mask
            assert scores.shape == shape
        with np.errstate(invalid="ignore"):
            weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = (weights / weights.sum(-1, keepdims=True)) @ cut(v)
        return (y.transpose(0, 2, 1, 3).reshape(*q.shape[:2], -1).astype(np.float32),)


OPERATORS = [FpxLayerNorm, FpxRmsNorm, FpxGelu, FpxSilu, FpxAttention]


def noise(*shape, seed=0):
    """Normal noise, the same at every call."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class Graph:
    """A model under construction. Inputs state open dimensions where `dims` names them."""

    def __init__(self, opset):
        self.opset, self.nodes, self.constants, self.inputs, self.feeds = opset, [], [], [], {}
        self.domains = [helper.make_opsetid("", opset)]

    def input(self, name, array, dims=None):
        array = np.asarray(array)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, dtype, dims or [f"{name}{i}" for i in range(array.ndim)]))
        self.feeds[name] = array
        return name

    def const(self, array, as_node=False):
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = f"c{len(self.constants)}_{len(self.nodes)}"
        if as_node:
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array)))
        else:
            self.constants.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind, *inputs, outputs=1, domain="", **attributes):
        inputs = [value if isinstance(value, str) else self.const(value) for value in inputs]
        name = f"{kind}_{len(self.nodes)}"
        made = [f"{name}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, name=name, domain=domain, **attributes))
        if domain and all(own.domain != domain for own in self.domains):
            self.domains.append(helper.make_opsetid(domain, 1))
        return made if outputs > 1 else made[0]

    def mean(self, x, axis=-1, keepdims=1):
        if self.opset >= 18:
            return self.op("ReduceMean", x, np.array([axis]), keepdims=keepdims)
        return self.op("ReduceMean", x, axes=[axis], keepdims=keepdims)

    def unsqueeze(self, x, axis=0):
        if self.opset >= 13:
            return self.op("Unsqueeze", x, np.array([axis]))
        return self.op("Unsqueeze", x, axes=[axis])

    def size(self, x, axis):
        return self.unsqueeze(self.op("Gather", self.op("Shape", x), np.array(axis), axis=0))

    def linear(self, x, n, k, seed=1):
        return self.op("Add", self.op("MatMul", x, noise(k, n, seed=seed) / np.sqrt(k)), noise(n, seed=seed + 50) / 10)

    def case(self, name, *outputs, **fused):
        """The case of this model: the fused nodes that there must be, by operator without `Fpx`."""
        types = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, types, self.constants)
        model = helper.make_model(graph, opset_imports=self.domains, ir_version=8 if self.opset < 21 else 10)
        CASES.append((f"{name} @{self.opset}", model, self.feeds, {f"Fpx{op}": n for op, n in fused.items() if n}))


ROWS = ["batch", "sequence", 24]


def vector(n=24, seed=9):
    return 1 + noise(n, seed=seed) / 4


def layer_norm(g, x, epsilon=1e-5, square="Pow", root="Sqrt", twice=False, scale=True, bias=True, left=False, axis=-1,
               eps_left=False, exponent=2.0):
    """A LayerNorm written out; returns its result and its deviation."""
    def swap(kind, a, b):
        return g.op(kind, b, a) if left else g.op(kind, a, b)

    d = g.op("Sub", x, g.mean(x, axis))
    other = g.op("Sub", x, g.mean(x, axis)) if twice else d
    squared = g.op("Pow", other, np.float32(exponent)) if square == "Pow" else g.op("Mul", other, other)
    variance = g.mean(squared, axis)
    epsilon = np.float32(epsilon)
    total = g.op("Add", epsilon, variance) if eps_left else g.op("Add", variance, epsilon)
    if root == "Sqrt":
        y = g.op("Div", d, g.op("Sqrt", total))
    elif root == "PowHalf":
        y = g.op("Div", d, g.op("Pow", total, np.float32(0.5)))
    elif root == "Reciprocal":
        y = swap("Mul", d, g.op("Reciprocal", g.op("Sqrt", total)))
    elif root == "One":
        y = swap("Mul", d, g.op("Div", np.float32(1), g.op("Sqrt", total)))
    else:
        y = swap("Mul", d, g.op("Pow", total, np.float32(-0.5)))
    y = swap("Mul", y, vector()) if scale else y
    return (swap("Add", y, noise(24, seed=3)) if bias else y), d


def norm_cases():
    for opset in (11, 13, 17, 18, 21):
        for options in ({}, {"square": "Mul"}, {"twice": True}, {"twice": True, "square": "Mul"}, {"root": "PowHalf"},
                        {"root": "Reciprocal", "left": True}, {"root": "One"}, {"root": "PowMinusHalf", "eps_left": True},
                        {"bias": False}, {"scale": False}, {"axis": 2}, {"left": True}):
            g = Graph(opset)
            y, _ = layer_norm(g, g.input("x", noise(2, 5, 24) + 1, ROWS), **options)
            g.case(f"layer norm {options}", y, LayerNorm=1)
    for options in ({"axis": 1}, {"scale": False, "bias": False}, {"exponent": 3.0}):
        g = Graph(13)
        y, _ = layer_norm(g, g.input("x", noise(2, 24, 24) + 1, ["batch", 24, 24]), **options)
        g.case(f"no layer norm {options}", g.op("Abs", y))
    g = Graph(13)
    y, d = layer_norm(g, g.input("x", noise(2, 5, 24), ROWS))
    g.case("layer norm with its deviation an output", y, d, RmsNorm=1)
    g = Graph(13)
    y, d = layer_norm(g, g.input("x", noise(2, 5, 24), ROWS))
    g.case("layer norm whose deviation is read", y, g.op("Abs", d), RmsNorm=1)
    g = Graph(13)
    y, _ = layer_norm(g, g.op("Identity", g.input("x", noise(2, 5, 24), ROWS)))
    g.case("layer norm between copies", g.op("Identity", g.op("Cast", y, to=1)), LayerNorm=1)
    g = Graph(13)
    x = g.op("Cast", g.input("x", noise(2, 5, 24), ROWS), to=TensorProto.FLOAT16)
    d = g.op("Sub", x, g.mean(x))
    total = g.op("Add", g.mean(g.op("Mul", d, d)), np.float16(1e-3))
    y = g.op("Mul", g.op("Div", d, g.op("Sqrt", total)), vector().astype(np.float16))
    g.case("no layer norm in half precision", g.op("Abs", g.op("Cast", y, to=1)))
    for opset in (17, 21):
        for axis, wanted in ((-1, 1), (2, 1), (1, 0)):
            g = Graph(opset)
            x = g.input("x", noise(2, 5, 24), ["batch", 5, 24])
            shape = (24,) if axis != 1 else (5, 24)
            y = g.op("LayerNormalization", x, 1 + noise(*shape) / 4, noise(*shape, seed=2), axis=axis, epsilon=1e-3)
            y = g.op("LayerNormalization", y, g.const(vector(), as_node=True), axis=-1)
            g.case(f"LayerNormalization along {axis}", y, LayerNorm=1 + wanted)
    rms_cases()


def rms_cases():
    for opset in (13, 18):
        for root in ("Div", "Reciprocal", "One", "Pow"):
            for square in ("Mul", "Pow"):
                g = Graph(opset)
                x = g.linear(g.input("h", noise(2, 5, 24), ROWS), 24, 24)
                squared = g.op("Mul", x, x) if square == "Mul" else g.op("Pow", x, np.float32(2))
                total = g.op("Add", g.mean(squared), np.float32(1e-6))
                y = {"Div": lambda: g.op("Div", x, g.op("Sqrt", total)),
                     "Reciprocal": lambda: g.op("Mul", x, g.op("Reciprocal", g.op("Sqrt", total))),
                     "One": lambda: g.op("Mul", x, g.op("Div", np.float32(1), g.op("Sqrt", total))),
                     "Pow": lambda: g.op("Mul", x, g.op("Pow", total, np.float32(-0.5)))}[root]()
                g.case(f"rms norm {root} {square}", g.op("Mul", vector(), y), RmsNorm=1)
    g = Graph(23)
    g.case("RMSNormalization", g.op("RMSNormalization", g.input("x", noise(2, 5, 24), ROWS), vector(), epsilon=1e-4),
           RmsNorm=1)
    g = Graph(17)
    x = g.input("x", noise(2, 5, 24), ROWS)
    g.case("SimplifiedLayerNormalization", g.op("SimplifiedLayerNormalization", x, vector(), axis=-1, epsilon=1e-4),
           RmsNorm=1)
    g = Graph(13)
    x = g.input("x", noise(2, 5, 24), ROWS)
    y = g.op("Div", x, g.op("Sqrt", g.op("Add", g.mean(g.op("Mul", x, x)), g.const(noise(24, seed=4) ** 2))))
    g.case("no rms norm with a vector for epsilon", g.op("Mul", y, vector()))


def gelu_cases():
    for opset in (11, 14, 20):
        for style in range(7):
            g = Graph(opset)
            x = g.linear(g.input("h", noise(2, 5, 8), ["batch", "sequence", 8]), 24, 8)
            inner = g.op("Div", x, np.float32(SQRT2)) if style % 2 else g.op("Mul", x, np.float32(1 / SQRT2))
            gate, half = g.op("Add", g.op("Erf", inner), np.float32(1)), np.float32(0.5)
            y = [lambda: g.op("Mul", g.op("Mul", x, gate), half), lambda: g.op("Mul", x, g.op("Mul", half, gate)),
                 lambda: g.op("Mul", g.op("Mul", x, half), gate), lambda: g.op("Mul", g.op("Mul", gate, half), x),
                 lambda: g.op("Mul", half, g.op("Mul", gate, x)), lambda: g.op("Mul", gate, g.op("Mul", half, x)),
                 lambda: g.op("Div", g.op("Mul", x, gate), np.float32(2))][style]()
            g.case(f"gelu erf {style}", g.op("Add", y, np.float32(1)), Gelu=1)
        for style in range(6):
            g = Graph(opset)
            x = g.input("x", 2 * noise(2, 5, 24), ROWS)
            y = tanh_gelu(g, x, style)
            g.case(f"gelu tanh {style}", y, Gelu=1)
    for name, half, one, root, same in (("half", 0.6, 1, SQRT2, True), ("one", 0.5, 1.5, SQRT2, True),
                                        ("root", 0.5, 1, 1.5, True), ("argument", 0.5, 1, SQRT2, False)):
        g = Graph(14)
        x = g.input("x", noise(2, 5, 24), ROWS)
        other = x if same else g.input("z", noise(2, 5, 24, seed=4), ROWS)
        gate = g.op("Add", g.op("Erf", g.op("Div", other, np.float32(root))), np.float32(one))
        g.case(f"no gelu, {name}", g.op("Mul", g.op("Mul", x, gate), np.float32(half)))
    g = Graph(14)
    x = g.input("x", noise(2, 5, 24), ROWS)
    gate = g.op("Add", g.op("Erf", g.op("Div", x, np.float32(SQRT2))), np.float32(1))
    g.case("no gelu whose gate is read", g.op("Mul", g.op("Mul", x, gate), np.float32(0.5)), gate)
    g = Graph(14)
    x = g.input("x", noise(2, 5, 24), ROWS)
    g.case("no gelu with another cube", tanh_gelu(g, x, 0, cube=0.05))
    for approximate in ("none", "tanh"):
        g = Graph(20)
        g.case(f"Gelu {approximate}", g.op("Gelu", g.input("x", noise(2, 5, 24), ROWS), approximate=approximate), Gelu=1)
    for op in ("Gelu", "FastGelu"):
        g = Graph(14)
        g.case(f"contributed {op}", g.op(op, g.input("x", noise(2, 5, 24), ROWS), domain="com.microsoft"), Gelu=1)
    g = Graph(14)
    x = g.input("x", noise(2, 5, 24), ROWS)
    g.case("no FastGelu with a bias", g.op("FastGelu", x, noise(24), domain="com.microsoft"))
    silu_cases()


def tanh_gelu(g, x, style, cube=0.044715):
    """The tanh form, associated in different ways."""
    half, one, cube = np.float32(0.5), np.float32(1), np.float32(cube)
    if style == 5:
        inner = g.op("Mul", g.op("Mul", x, np.float32(TANH_SCALE)),
                     g.op("Add", one, g.op("Mul", g.op("Mul", cube, x), x)))
    else:
        third = [lambda: g.op("Pow", x, np.float32(3)), lambda: g.op("Mul", g.op("Mul", x, x), x)][style % 2]()
        total = [lambda: g.op("Add", x, g.op("Mul", cube, third)), lambda: g.op("Add", g.op("Mul", third, cube), x)][
            style // 2 % 2]()
        inner = g.op("Mul", np.float32(TANH_SCALE), total)
    gate = g.op("Add", one, g.op("Tanh", inner))
    if style % 3 == 0:
        return g.op("Mul", g.op("Mul", half, x), gate)
    return g.op("Mul", x, g.op("Mul", gate, half)) if style % 3 == 1 else g.op("Mul", g.op("Mul", x, gate), half)


def silu_cases():
    for left in (False, True):
        g = Graph(13)
        x = g.input("x", noise(2, 5, 24), ROWS)
        s = g.op("Sigmoid", x)
        g.case("silu", g.op("Mul", s, x) if left else g.op("Mul", x, s), Silu=1)
    g = Graph(13)
    x = g.input("x", noise(2, 5, 24), ROWS)
    g.case("no silu of 1.702 x", g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, np.float32(1.702)))))
    g = Graph(13)
    x, z = g.input("x", noise(2, 5, 24), ROWS), g.input("z", noise(2, 5, 24, seed=3), ROWS)
    g.case("no silu of another value", g.op("Mul", x, g.op("Sigmoid", z)))
    g = Graph(13)
    x = g.input("x", noise(2, 5, 24), ROWS)
    s = g.op("Sigmoid", x)
    g.case("no silu whose gate is an output", g.op("Mul", x, s), s)


HEADS, SIZE, WIDTH = 3, 8, 24


def target(g, x, style, heads=HEADS, size=SIZE):
    """The shape (batch, sequence, heads, size), written in one of several ways."""
    rest = [np.array([heads]), np.array([size])]
    if style == "constant":
        return np.array([0, 0, heads, size])
    if style == "open size":
        return np.array([0, 0, heads, -1])
    if style == "open heads":
        return np.array([0, 0, -1, size])
    if style == "open sequence":
        return g.op("Concat", g.size(x, 0), np.array([-1]), *rest, axis=0)
    if style == "open batch":
        return g.op("Concat", np.array([-1]), g.size(x, 1), *rest, axis=0)
    if style == "slice":
        return g.op("Concat", g.op("Slice", g.op("Shape", x), np.array([0]), np.array([2])), *rest, axis=0)
    if style == "computed":
        size = g.unsqueeze(g.op("Div", g.op("Gather", g.op("Shape", x), np.array(2), axis=0), np.array(heads)))
        return g.op("Concat", g.size(x, 0), g.size(x, 1), np.array([heads]), size, axis=0)
    return g.op("Concat", g.size(x, 0), g.size(x, 1), *rest, axis=0)


def merge(g, y, x, style, width=WIDTH):
    """Joins the heads: Transpose and Reshape."""
    y = g.op("Transpose", y, perm=[0, 2, 1, 3])
    if style == "constant":
        return g.op("Reshape", y, np.array([0, 0, width]))
    if style == "own shape":
        return g.op("Reshape", y, g.op("Concat", g.op("Slice", g.op("Shape", y), np.array([0]), np.array([2])),
                                       np.array([width]), axis=0))
    if style == "own sizes":
        return g.op("Reshape", y, g.op("Concat", g.size(y, 0), g.size(y, 1), np.array([width]), axis=0))
    last = np.array([-1]) if style == "open" else np.array([width])
    return g.op("Reshape", y, g.op("Concat", g.size(x, 0), g.size(x, 1), last, axis=0))


def attention(g, x, context=None, style="concat", join="concat", keys="direct", scale="scores", mask=None, add_left=False,
              softmax_axis=-1, guard=False, back=(0, 2, 1, 3), k_heads=None):
    """An attention as exporters write it; `mask` maps scores to masked scores."""
    context = context or x

    def cut(value, source, perm, heads=HEADS):
        shape = target(g, source, style, heads, WIDTH // heads)
        return g.op("Transpose", g.op("Reshape", value, shape), perm=perm)

    q = cut(g.linear(x, WIDTH, WIDTH, 1), x, [0, 2, 1, 3])
    key, v = g.linear(context, WIDTH, WIDTH, 2), cut(g.linear(context, WIDTH, WIDTH, 3), context, [0, 2, 1, 3])
    if scale == "shape":
        size = g.op("Slice", g.op("Shape", q), np.array([-1]), np.array([2**63 - 1]))
        factor = g.op("Sqrt", g.op("Div", np.array([1], np.float32), g.op("Sqrt", g.op("Cast", size, to=1))))
    if scale == "query":
        q = g.op("Div", q, np.float32(np.sqrt(SIZE)))
    elif scale == "both":
        q = g.op("Mul", q, np.float32(SIZE**-0.25))
    elif scale == "shape":
        q = g.op("Mul", q, factor)
    if keys == "direct":
        k = cut(key, context, [0, 2, 3, 1], k_heads or HEADS)
    else:
        k = g.op("Transpose", cut(key, context, [0, 2, 1, 3], k_heads or HEADS), perm=[0, 1, 3, 2])
    if scale == "both":
        k = g.op("Mul", k, np.float32(SIZE**-0.25))
    elif scale == "shape":
        k = g.op("Mul", k, factor)
    scores = g.op("MatMul", q, k)
    if scale == "scores":
        scores = g.op("Div", scores, np.float32(np.sqrt(SIZE)))
    elif scale == "computed":
        scores = g.op("Mul", scores, g.op("Reciprocal", g.op("Sqrt", np.float32(SIZE))))
    if mask:
        scores = mask(scores)
    weights = g.op("Softmax", scores, axis=softmax_axis)
    if guard:
        weights = g.op("Where", g.op("IsNaN", weights), np.float32(0), weights)
    return merge(g, g.op("MatMul", weights, v) if back == (0, 2, 1, 3) else g.op("MatMul", weights, v), x, join)


def hidden(g, batch=2, sequence=5):
    return g.input("x", noise(batch, sequence, WIDTH), ["batch", "sequence", WIDTH])


def attention_cases():
    for opset in (11, 13, 14, 17, 21):
        for style in ("concat", "constant", "open size", "open heads", "open sequence", "open batch", "slice", "computed"):
            g = Graph(opset)
            x = hidden(g)
            g.case(f"attention target {style}", attention(g, x, style=style), Attention=1)
        for join in ("constant", "own shape", "own sizes", "open"):
            g = Graph(opset)
            g.case(f"attention joined {join}", attention(g, hidden(g), join=join), Attention=1)
        for keys in ("direct", "twice"):
            for scale in ("none", "scores", "query", "both", "shape", "computed"):
                g = Graph(opset)
                g.case(f"attention keys {keys} scale {scale}", attention(g, hidden(g), keys=keys, scale=scale), Attention=1)
    g = Graph(14)
    x, context = hidden(g), g.input("context", noise(2, 7, WIDTH, seed=8), ["batch", "keys", WIDTH])
    g.case("cross attention", attention(g, x, context, keys="twice"), Attention=1)
    g = Graph(13)
    g.case("attention along axis 3", attention(g, hidden(g), softmax_axis=3), Attention=1)
    g = Graph(14)
    g.case("attention without NaN", attention(g, hidden(g), guard=True), Attention=1)
    mask_cases()
    joined_cases()
    operator_cases()
    missed_attention_cases()


def mask_cases():
    half = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 1]], bool)
    for style in ("right", "left", "where", "where swapped", "expanded", "infinite", "both", "causal", "guarded"):
        g = Graph(14)
        x = hidden(g)
        m = g.input("mask", half, ["batch", "sequence"])
        m = g.op("Unsqueeze", m, np.array([1, 2]))
        added = {}

        def mask(scores, g=g, m=m, style=style, added=added):
            if style in ("right", "left"):
                bias = g.op("Mul", g.op("Sub", np.float32(1), g.op("Cast", m, to=1)), np.float32(-1e4))
                return g.op("Add", scores, bias) if style == "right" else g.op("Add", bias, scores)
            if style == "where":
                return g.op("Where", m, scores, np.float32(-1e9))
            if style == "where swapped":
                return g.op("Where", g.op("Not", m), np.float32(np.finfo(np.float32).min), scores)
            if style == "expanded":
                return g.op("Where", g.op("Expand", g.op("Not", m), g.op("Shape", scores)), np.float32(-1e9), scores)
            if style in ("infinite", "guarded"):
                return g.op("Where", m, scores, np.float32(-np.inf))
            causal = np.triu(np.full((1, 1, 5, 5), -1e9, np.float32), 1)
            if style == "causal":
                return g.op("Add", scores, causal)
            return g.op("Add", g.op("Where", m, scores, np.float32(-1e9)), causal)

        g.case(f"attention masked {style}", attention(g, x, mask=mask, guard=style == "guarded"), Attention=1)
    g = Graph(14)
    x = hidden(g)
    m = g.op("Unsqueeze", g.input("mask", half, ["batch", "sequence"]), np.array([1, 2]))
    for _ in range(3):
        x = attention(g, x, mask=lambda scores: g.op("Where", m, scores, np.float32(-1e9)))
    g.case("attentions that share a mask", x, Attention=3)
    g = Graph(14)
    x = g.input("x", noise(2, 5, WIDTH), ["batch", "sequence", WIDTH])
    blank = g.op("Unsqueeze", g.input("mask", np.zeros((2, 5), bool), ["batch", "sequence"]), np.array([1, 2]))
    y = attention(g, x, guard=True, mask=lambda scores: g.op("Where", blank, scores, np.float32(-np.inf)))
    g.case("attention with all masked", y, Attention=1)


def joined_cases():
    for opset in (9, 11, 13, 17):
        for style in ("gather", "split"):
            g = Graph(opset)
            x = hidden(g)
            shape = g.op("Concat", g.size(x, 0), g.size(x, 1), np.array([3]), np.array([HEADS]), np.array([SIZE]), axis=0)
            joined = g.op("Reshape", g.linear(x, 3 * WIDTH, WIDTH), shape)
            joined = g.op("Transpose", joined, perm=[2, 0, 3, 1, 4])
            if style == "gather":
                q, k, v = (g.op("Gather", joined, np.array(i), axis=0) for i in range(3))
            else:
                parts = g.op("Split", joined, outputs=3, axis=0)
                q, k, v = (g.op("Squeeze", part, np.array([0])) if opset >= 13 else g.op("Squeeze", part, axes=[0])
                           for part in parts)
            scores = g.op("MatMul", g.op("Mul", q, np.float32(SIZE**-0.5)), g.op("Transpose", k, perm=[0, 1, 3, 2]))
            y = g.op("MatMul", g.op("Softmax", scores, axis=3), v)
            g.case(f"joined attention {style}", merge(g, y, x, "concat"), Attention=1)
    g = Graph(13)
    x = hidden(g)
    q, k, v = g.op("Split", g.linear(x, 3 * WIDTH, WIDTH), outputs=3, axis=-1)
    q, k, v = (g.op("Transpose", g.op("Reshape", part, np.array([0, 0, HEADS, SIZE])), perm=perm)
               for part, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])))
    y = g.op("MatMul", g.op("Softmax", g.op("MatMul", q, k)), v)
    g.case("attention of a split", merge(g, y, x, "constant"), Attention=1)


def operator_cases():
    def operands(g):
        x = hidden(g)
        return [g.linear(x, WIDTH, WIDTH, seed) for seed in (1, 2, 3)]

    mask = np.triu(np.full((5, 5), -1e9, np.float32), 1)
    for name, extra, attributes, wanted in (
            ("", [], {}, 1), ("scaled", [], {"scale": 0.3}, 1), ("masked", [mask], {}, 1), ("bool", [mask == 0], {}, 1),
            ("causal", [], {"is_causal": 1}, 0), ("capped", [], {"softcap": 2.0}, 0)):
        g = Graph(23)
        y = g.op("Attention", *operands(g), *extra, q_num_heads=HEADS, kv_num_heads=HEADS, **attributes)
        g.case(f"Attention {name}", y, Attention=wanted)
    for name, extra, attributes in (("", [], {}), ("scaled", [], {"scale": 0.3}),
                                    ("masked", ["", "", np.broadcast_to(mask, (1, 1, 5, 5)).copy()], {})):
        g = Graph(17)
        y = g.op("MultiHeadAttention", *operands(g), *extra, domain="com.microsoft", num_heads=HEADS, **attributes)
        g.case(f"MultiHeadAttention {name}", y, Attention=1)


def missed_attention_cases():
    def miss(name, g, *outputs):
        g.case(f"no attention, {name}", *outputs)

    g = Graph(14)
    miss("other softmax axis", g, attention(g, hidden(g), softmax_axis=2))
    g = Graph(14)
    miss("weak mask", g, attention(g, hidden(g), mask=lambda s: g.op("Where", np.eye(5, dtype=bool), s, np.float32(-5))))
    g = Graph(14)
    miss("mask by product", g, attention(g, hidden(g), mask=lambda s: g.op("Mul", s, noise(5, 5))))
    g = Graph(14)
    miss("scaled after mask", g, attention(
        g, hidden(g), mask=lambda s: g.op("Mul", g.op("Add", s, noise(5, 5)), np.float32(0.5))))
    g = Graph(14)
    miss("shape of another mask", g, attention(
        g, hidden(g), mask=lambda s: g.op("Add", s, g.op("Expand", np.float32(0.5), g.op("Shape", s)))))
    g = Graph(14)
    y = attention(g, hidden(g))
    softmax = next(node for node in g.nodes if node.op_type == "Softmax")
    miss("weights are an output", g, y, softmax.output[0])
    g = Graph(14)
    y = attention(g, hidden(g))
    scores = next(node for node in g.nodes if node.op_type == "Softmax").input[0]
    miss("scores are read", g, y, g.op("Abs", scores))
    g = Graph(14)  # Windows: the sequence of 8 becomes two of 4, which are batches of their own.
    x = g.input("x", noise(2, 8, WIDTH), ["batch", 8, WIDTH])
    cut = [g.op("Transpose", g.op("Reshape", g.linear(x, WIDTH, WIDTH, i), np.array([-1, 4, HEADS, SIZE])), perm=perm)
           for i, perm in ((1, [0, 2, 1, 3]), (2, [0, 2, 3, 1]), (3, [0, 2, 1, 3]))]
    y = g.op("MatMul", g.op("Softmax", g.op("MatMul", cut[0], cut[1])), cut[2])
    y = g.op("Reshape", g.op("Transpose", y, perm=[0, 2, 1, 3]), np.array([-1, 8, WIDTH]))
    miss("windows", g, y)
    g = Graph(14)
    x = hidden(g)
    q, k, v = (g.op("Transpose", g.op("Reshape", g.linear(x, WIDTH, WIDTH, i), np.array([0, 0, HEADS, SIZE])), perm=perm)
               for i, perm in ((1, [0, 2, 1, 3]), (2, [0, 2, 3, 1]), (3, [0, 2, 1, 3])))
    y = g.op("MatMul", g.op("Softmax", g.op("MatMul", q, k)), v)
    miss("heads not moved back", g, g.op("Reshape", y, np.array([0, -1, WIDTH])))


def encoder_cases():
    """Whole encoders of two layers."""
    for opset in (11, 14, 18):
        g = Graph(opset)
        ids = g.input("ids", np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8]]), ["batch", "sequence"])
        x = g.op("Gather", noise(10, WIDTH), ids, axis=0)
        positions = g.op("Range", np.array(0), g.op("Gather", g.op("Shape", ids), np.array(1), axis=0), np.array(1))
        x, _ = layer_norm(g, g.op("Add", x, g.op("Gather", noise(12, WIDTH, seed=4), positions, axis=0)))
        mask = g.op("Cast", g.unsqueeze(g.unsqueeze(g.op("Equal", ids, np.array(0)), 1), 1), to=1)
        mask = g.op("Mul", mask, np.float32(-10000))
        for _ in range(2):
            y = attention(g, x, mask=lambda scores, mask=mask: g.op("Add", scores, mask))
            x, _ = layer_norm(g, g.op("Add", g.linear(y, WIDTH, WIDTH, 4), x))
            h = g.linear(x, 40, WIDTH, 5)
            gate = g.op("Add", g.op("Erf", g.op("Div", h, np.float32(SQRT2))), np.float32(1))
            h = g.op("Mul", g.op("Mul", h, gate), np.float32(0.5))
            x, _ = layer_norm(g, g.op("Add", g.linear(h, WIDTH, 40, 6), x))
        g.case("encoder", x, Attention=2, LayerNorm=5, Gelu=2)


def check(program, model, feeds, wanted, folder):
    """Fuses one model and compares it."""
    source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
    source.write_bytes(model.SerializeToString())
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    expected = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    done = subprocess.run([program, source, target], capture_output=True, text=True)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    fused = onnx.load(target)
    found = collections.Counter(node.op_type for node in fused.graph.node if node.domain == "fpxint")
    assert found == wanted, f"{dict(found)} for {wanted}"
    read = {name for node in fused.graph.node for name in node.input} | {o.name for o in fused.graph.output}
    assert all(read & set(node.output) for node in fused.graph.node), "a node that nothing reads"
    got = ReferenceEvaluator(fused, new_ops=OPERATORS).run(None, feeds) if wanted else expected
    for got, want in zip(got, expected, strict=True):
        assert got.shape == want.shape, f"{got.shape} {want.shape}"
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def main():
    program, wanted = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    for build in (norm_cases, gelu_cases, attention_cases, encoder_cases):
        build()
    count = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, model, feeds, fused in (c for c in CASES if wanted in c[0]):
            count += 1
            try:
                check(program, model, feeds, fused, folder)
            except Exception as error:  # Whatever the reason, the case has failed.
                failed += 1
                print(f"FAILED: {name}: {str(error).strip()[:300]}")
    print(f"{count} checks, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

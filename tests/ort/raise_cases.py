"""Raises small models of old opsets and compares them, before and after, in ONNX Runtime.

    raise_cases.py PROGRAM [NAME]

PROGRAM is called as `PROGRAM IN OUT TO` and exits with 0 (raised), 1 (not raisable) or else (an error). A case is
raised to each of opsets 13, 21 and 25 above its own, unless it says otherwise. The result must pass onnx.checker with
shape inference, carry the new opset, and give the same outputs within 1e-6 (NaN equal to NaN). Other cases must be
refused for the reason they state. With NAME, only cases whose name contains it.
Needs onnx, onnxruntime and numpy. Exit code 1 if a case fails.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

TARGETS = (13, 21, 25)
CASES = []
REFUSALS = []


def noise(*shape, dtype=np.float32, seed=0):
    """Normal noise, the same at every call."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def model(opset, nodes, inputs, constants=None, hidden=False, ir=None, outputs=None, infos=()):
    """A model that reads `inputs` (arrays) and returns the outputs of its last node."""
    def value(name, array):
        shape = [None] * array.ndim if hidden == "sizes" else None if hidden else array.shape
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)

    constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()]
    outputs = outputs or {name: TensorProto.FLOAT for name in nodes[-1].output if name}
    graph = helper.make_graph(
        nodes, "graph", [value(n, a) for n, a in inputs.items()],
        [helper.make_tensor_value_info(n, t, None) for n, t in outputs.items()], constants, value_info=infos)
    if ir is not None and ir < 4:
        graph.input.extend(helper.make_tensor_value_info(c.name, c.data_type, c.dims) for c in constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = ir or {7: 3, 8: 3, 9: 4}.get(opset, 7)
    if made.ir_version < 4 and ir is None:
        made.ir_version = 4
    return made


def case(name, opset, nodes, inputs, constants=None, targets=TARGETS, **rest):
    """A model that must be raised to those of `targets` above its opset, and the inputs to run it on."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    inputs = {n: np.asarray(a) for n, a in inputs.items()}
    CASES.append((f"{name} @{opset}", model(opset, nodes, inputs, constants, **rest), inputs,
                  [to for to in targets if to > opset]))


def refuse(name, opset, nodes, inputs, constants=None, reason="", targets=TARGETS, **rest):
    """A model that must not be raised to `targets`, and a part of the reason."""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    REFUSALS.append((f"{name} @{opset}", model(opset, nodes, inputs, constants, **rest), reason, targets))


def node(op, inputs, outputs="y", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name=f"{op}_{outputs.split()[0]}", **attributes)


IMAGE = {"x": noise(2, 4, 7, 6)}
VECTOR = {"x": noise(3, 5)}
INT64 = TensorProto.INT64


def attribute_cases():
    """Operators whose attributes became inputs."""
    for opset in (7, 10):
        case("clip both", opset, node("Clip", "x", min=-0.5, max=0.25), VECTOR)
        case("clip min", opset, node("Clip", "x", min=0.1), VECTOR)
        case("clip max", opset, node("Clip", "x", max=0.1), VECTOR)
        case("clip infinite", opset, node("Clip", "x"), {"x": np.array([-np.inf, np.nan, 1, np.inf], np.float32)})
        case("clip unstated type", opset, [node("Relu", "x", "h"), node("Clip", "h", max=0.5)], VECTOR, hidden=True)
        case("pad zero", opset, node("Pad", "x", pads=[0, 1, 2, 0]), VECTOR)
        case("pad value", opset, node("Pad", "x", pads=[0, 1, 2, 0], value=1.5), VECTOR)
        case("pad negative", opset, node("Pad", "x", pads=[0, -1, 2, -1], value=-2.0), VECTOR)
        case("pad reflect", opset, node("Pad", "x", pads=[1, 1, 0, 2], mode="reflect"), VECTOR)
        case("pad edge", opset, node("Pad", "x", pads=[1, 1, 0, 2], mode="edge"), VECTOR)
    case("clip", 11, node("Clip", "x low"), VECTOR, {"low": np.float32(0.1)})
    case("pad", 13, node("Pad", "x pads value"), VECTOR, {"pads": np.array([0, 1, 2, 0]), "value": np.float32(3)})
    for opset in (7, 9):
        case("slice axes", opset, node("Slice", "x", starts=[1, -3], ends=[2**31 - 1, -1], axes=[0, 1]), VECTOR)
        case("slice first axes", opset, node("Slice", "x", starts=[1], ends=[3]), VECTOR)
        case("slice beyond", opset, node("Slice", "x", starts=[-9], ends=[9], axes=[1]), VECTOR)
        case("topk", opset, node("TopK", "x", "v i", k=2, axis=1), VECTOR, outputs={"v": 1, "i": INT64})
    case("slice", 10, node("Slice", "x s e"), VECTOR, {"s": np.array([0, 1]), "e": np.array([2, 4])})
    case("topk", 10, node("TopK", "x k", "v i", axis=0), VECTOR, {"k": np.array([2])}, outputs={"v": 1, "i": INT64})
    case("topk", 11, node("TopK", "x k", "v i", axis=0, largest=0), VECTOR, {"k": np.array([2])},
         outputs={"v": 1, "i": INT64})
    for opset in (7, 11, 12):
        case("split lengths", opset, node("Split", "x", "a b", split=[2, 3], axis=1), VECTOR)
        case("split equal", opset, node("Split", "x", "a b c", axis=0), VECTOR)
        case("squeeze axes", opset, node("Squeeze", "x", axes=[0, 2]), {"x": noise(1, 3, 1, 2)})
        case("squeeze all", opset, node("Squeeze", "x"), {"x": noise(1, 3, 1, 2)})
        case("unsqueeze", opset, node("Unsqueeze", "x", axes=[0, 3]), VECTOR)
    case("split lengths", 13, node("Split", "x n", "a b", axis=1), VECTOR, {"n": np.array([2, 3])})
    case("split equal", 13, node("Split", "x", "a b c"), VECTOR)
    case("squeeze negative", 11, node("Squeeze", "x", axes=[-2]), {"x": noise(2, 1, 3)})
    case("unsqueeze negative", 11, node("Unsqueeze", "x", axes=[-1]), VECTOR)
    for kind in "Sum Mean Max Min Prod L1 L2 LogSum LogSumExp SumSquare".split():
        positive = {"x": np.abs(noise(2, 3, 4)) + 0.1}
        for opset in (7, 11, 13, 17):
            axes = {} if kind == "Sum" and opset >= 13 else {"axes": [1]}
            case(f"reduce {kind}", opset, node(f"Reduce{kind}", "x", **axes), positive)
            case(f"reduce {kind} all", opset, node(f"Reduce{kind}", "x", keepdims=0), positive)
        case(f"reduce {kind} negative", 11, node(f"Reduce{kind}", "x", axes=[-1, 0], keepdims=0), positive)
    case("reduce sum by input", 13, node("ReduceSum", "x a"), VECTOR, {"a": np.array([1])})
    for axis in ({}, {"axis": 1}, {"axis": -2}, {"axis": 0}):
        case(f"dft {axis}", 17, node("DFT", "x", onesided=0, **axis), {"x": noise(3, 8, 1)})
    case("dft length", 17, node("DFT", "x n", axis=1, onesided=1), {"x": noise(3, 8, 1)}, {"n": np.int64(6)})


def matrix_cases():
    """Operators that read their input as a matrix below opset 13."""
    shapes = {1: (5,), 2: (3, 5), 3: (2, 3, 4), 4: (2, 3, 4, 5)}
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for opset in (7, 11, 12):
            for rank, shape in shapes.items():
                axes = list(range(rank)) + ([-1, -rank] if opset >= 11 else [])
                for axis in axes:
                    for hidden in (False, True):
                        name = f"{op} rank {rank} axis {axis} hidden {hidden}"
                        case(name, opset, node(op, "x", axis=axis), {"x": noise(*shape)}, hidden=hidden)
            case(f"{op} default", opset, node(op, "x"), {"x": noise(2, 3, 4)})
            case(f"{op} default hidden", opset, node(op, "x"), {"x": noise(2, 3, 4)}, hidden=True)
            case(f"{op} pooled", opset, node(op, "x"), {"x": noise(2, 3, 1, 1)})
            case(f"{op} pooled hidden", opset, node(op, "x"), {"x": noise(2, 3, 1, 1)}, hidden="sizes")
        case(f"{op} after flatten", 9, [node("Flatten", "x", "h"), node(op, "h", axis=1)], IMAGE, hidden=True)
        case(f"{op} newest form", 13, node(op, "x", axis=1), IMAGE)
    twice = [node("Softmax", "x", "y"), node("Softmax", "y", "y_flat"), node("Softmax", "y_flat", "y_flat_1")]
    case("softmax names taken", 9, twice, IMAGE, hidden=True)


def sampling_cases():
    """Upsample, Resize, GridSample, RoiAlign."""
    for scales in ([1, 1, 2, 2], [1, 1, 1.5, 2.7], [1, 1, 1, 3]):
        for mode in ("nearest", "linear"):
            values = {"s": np.array(scales, np.float32)}
            as_floats = [float(scale) for scale in scales]
            case(f"upsample {mode} {scales}", 7, node("Upsample", "x", mode=mode, scales=as_floats), IMAGE)
            case(f"upsample {mode} {scales}", 9, node("Upsample", "x s", mode=mode), IMAGE, values)
            case(f"resize {mode} {scales}", 10, node("Resize", "x s", mode=mode), IMAGE, values)
    case("upsample given scales", 9, node("Upsample", "x s"), {**IMAGE, "s": np.array([1, 1, 2, 3], np.float32)})
    made = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.float32([1, 1, 2, 2]), "v"))
    case("resize constant node", 10, [made, node("Resize", "x s")], IMAGE)
    case("upsample default mode", 7, node("Upsample", "x", scales=[1.0, 1.0, 2.0, 2.0]), IMAGE)
    case("upsample linear matrix", 7, node("Upsample", "x", scales=[2.0, 3.0], mode="linear"), VECTOR)
    for scales in ([1, 1, 0.5, 0.5], [1, 1, 0.6, 0.9], [1, 1, 1, 0.34]):
        for mode in ("nearest", "linear"):
            values = {"s": np.array(scales, np.float32)}
            case(f"resize shrink {mode} {scales}", 10, node("Resize", "x s", mode=mode), IMAGE, values)
    case("resize mixed linear", 10, node("Resize", "x s", mode="linear"), IMAGE, {"s": np.float32([1, 1, 0.5, 2])})
    case("resize given scales", 10, node("Resize", "x s", mode="linear"), {**IMAGE, "s": np.float32([1, 1, 0.5, 2])})
    mixed = {"s": np.float32([1, 1, 0.5, 2])}
    refuse("resize mixed nearest", 10, node("Resize", "x s"), IMAGE, mixed, "grows one axis")
    refuse("resize given scales", 10, node("Resize", "x s"), {**IMAGE, "s": np.float32([1, 1, 2, 2])}, reason="stated")
    empty = {"roi": np.zeros(0, np.float32), "none": np.zeros(0, np.float32)}
    coordinates = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    for opset in (11, 13, 18):
        for mode in ("nearest", "linear", "cubic"):
            for how in coordinates:
                attributes = dict(mode=mode, coordinate_transformation_mode=how)
                case(f"resize {mode} {how} scales", opset, node("Resize", "x roi s", **attributes), IMAGE,
                     {**empty, "s": np.float32([1, 1, 0.6, 2])})
                scales = "none" if opset < 13 else ""
                resized = helper.make_node("Resize", ["x", "roi", scales, "n"], ["y"], "r", **attributes)
                case(f"resize {mode} {how} sizes", opset, resized, IMAGE, {**empty, "n": np.array([2, 4, 9, 5])})
        roi = {"roi": np.float32([0, 0, .1, .2, 1, 1, .9, .8]), "s": np.float32([1, 1, 1.5, 2])}
        crop = dict(mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=0.5)
        case("resize crop", opset, node("Resize", "x roi s", **crop), IMAGE, roi)
    for how in ("floor", "ceil", "round_prefer_ceil", "round_prefer_floor"):
        case(f"resize {how}", 11, node("Resize", "x roi s", nearest_mode=how), IMAGE,
             {**empty, "s": np.float32([1, 1, 0.6, 2])})
    old = dict(coordinate_transformation_mode="tf_half_pixel_for_nn")
    refuse("resize removed coordinates", 11, node("Resize", "x roi s", **old), IMAGE,
           {**empty, "s": np.float32([1, 1, 2, 2])}, "tf_half_pixel_for_nn")
    grid = np.tanh(noise(2, 3, 5, 2))
    for mode in ("bilinear", "nearest", "bicubic"):
        case(f"grid sample {mode}", 16, node("GridSample", "x g", mode=mode), {**IMAGE, "g": grid})
    case("grid sample", 16, node("GridSample", "x g"), {**IMAGE, "g": grid})
    rois = {**IMAGE, "r": np.float32([[0, 0, 5, 4], [1, 2, 4, 6]]), "b": np.array([0, 1])}
    for mode in ("avg", "max"):
        shape = dict(output_height=3, output_width=2, sampling_ratio=2, mode=mode)
        case(f"roi align {mode}", 10, node("RoiAlign", "x r b", **shape), rois, targets=(13, 21))
        case(f"roi align {mode}", 16, node("RoiAlign", "x r b", **shape), rois, targets=(21,))
    refuse("roi align", 10, node("RoiAlign", "x r b", **shape), rois, reason="opset 22", targets=(25,))


def inference_cases():
    """Operators that differ between training and inference; normalisations."""
    four = {n: np.abs(noise(4, seed=i)) + 0.1 for i, n in enumerate(("s", "b", "m", "v"))}
    for opset in (7, 9, 14):
        case("batch norm", opset, node("BatchNormalization", "x s b m v", epsilon=1e-3), IMAGE, four)
    case("batch norm spatial", 7, node("BatchNormalization", "x s b m v", spatial=1), IMAGE, four)
    case("batch norm ir 3", 8, node("BatchNormalization", "x s b m v"), IMAGE, four, ir=3)
    element = {n: np.abs(noise(4, 7, 6, seed=i)) + 0.1 for i, n in enumerate(("s", "b", "m", "v"))}
    refuse("batch norm per element", 7, node("BatchNormalization", "x s b m v", spatial=0), IMAGE, element, "spatial")
    for opset in (7, 10, 12, 13):
        ratio = {"ratio": 0.3} if opset < 12 else {}
        case("dropout", opset, [node("Dropout", "x", "h", **ratio), node("Relu", "h")], VECTOR)
        case("dropout unused mask", opset, [node("Dropout", "x", "h m", **ratio), node("Relu", "h")], VECTOR)
    stated = [helper.make_tensor_value_info("m", TensorProto.FLOAT, [3, 5])]
    case("dropout stated mask", 7, [node("Dropout", "x", "h m"), node("Relu", "h")], VECTOR, infos=stated)
    case("dropout mask", 12, node("Dropout", "x", "y m"), VECTOR, outputs={"y": 1, "m": TensorProto.BOOL})
    refuse("dropout mask", 10, node("Dropout", "x", "y m"), VECTOR, reason="mask",
           outputs={"y": 1, "m": TensorProto.BOOL})
    case("instance norm", 7, node("InstanceNormalization", "x s b"), IMAGE, {"s": four["s"], "b": four["b"]})
    case("layer norm", 17, node("LayerNormalization", "x s"), IMAGE, {"s": noise(6)})
    case("lrn", 7, node("LRN", "x", size=3, alpha=0.01), IMAGE)
    case("lp norm", 7, node("LpNormalization", "x", axis=1), IMAGE)
    case("mean variance norm", 9, node("MeanVarianceNormalization", "x", axes=[0, 2, 3]), IMAGE)


def layer_cases():
    """Layers and pools that are kept as they are."""
    weight, bias = noise(6, 4, 3, 3, seed=1), noise(6, seed=2)
    for opset in (7, 11):
        case("conv", opset, node("Conv", "x w b", pads=[1, 1, 1, 1], strides=[2, 1]), IMAGE, {"w": weight, "b": bias})
        for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            case(f"conv {pad}", opset, node("Conv", "x w", auto_pad=pad, strides=[2, 2]), IMAGE, {"w": weight})
        turned = {"w": noise(4, 6, 3, 3)}
        case("conv transpose", opset,
             node("ConvTranspose", "x w", strides=[2, 2], output_padding=[1, 1]), IMAGE, turned)
        case("conv transpose shape", opset,
             node("ConvTranspose", "x w", strides=[2, 2], output_shape=[14, 12]), IMAGE, turned)
        for pad in ("SAME_UPPER", "SAME_LOWER"):
            case(f"conv transpose {pad}", opset,
                 node("ConvTranspose", "x w", strides=[2, 2], auto_pad=pad), IMAGE, turned)
        matrices = {"w": noise(4, 5, seed=1), "c": noise(4, seed=2)}
        case("gemm", opset, node("Gemm", "x w c", transB=1, alpha=0.5, beta=2.0), VECTOR, matrices)
        case("matmul", opset, node("MatMul", "x w"), VECTOR, {"w": noise(5, 4)})
        for pool in ("MaxPool", "AveragePool", "LpPool"):
            shape = dict(kernel_shape=[3, 2], strides=[2, 2])
            case(pool, opset, node(pool, "x", pads=[1, 0, 1, 1], **shape), IMAGE)
            for pad in ("SAME_UPPER", "SAME_LOWER", "VALID"):
                case(f"{pool} {pad}", opset, node(pool, "x", auto_pad=pad, **shape), IMAGE)
        case("global pools", opset, [node("GlobalMaxPool", "x", "a"), node("GlobalAveragePool", "x", "b"),
                                     node("Sub", "a b")], IMAGE)
    case("gemm without c", 11, node("Gemm", "x w"), VECTOR, {"w": noise(5, 4)})
    case("max pool indices", 8, node("MaxPool", "x", "y i", kernel_shape=[2, 2], strides=[2, 2]), IMAGE,
         outputs={"y": 1, "i": INT64})
    for opset in (10, 11):
        for pool in ("MaxPool", "AveragePool"):
            for pads in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1]):
                for counted in (({}, {"count_include_pad": 1}) if pool == "AveragePool" else ({},)):
                    case(f"{pool} ceil {pads} {counted}", opset, node(
                        pool, "x", kernel_shape=[3, 3], strides=[2, 2], pads=pads, ceil_mode=1, **counted), IMAGE)
        case("max pool dilations", opset, node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]), IMAGE)
    case("average pool counts", 7,
         node("AveragePool", "x", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), IMAGE)
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        weights = {"w": noise(1, gates * 3, 5), "r": noise(1, gates * 3, 3)}
        case(op, 7, node(op, "x w r", hidden_size=3), {"x": noise(4, 2, 5)}, weights)
    scalars = {"s": np.float32(0.05), "z": np.uint8(120)}
    there_and_back = [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z")]
    for opset in (10, 13):
        case("quantize", opset, there_and_back, VECTOR, scalars)
    per_axis = {"s": np.float32([.1, .2, .3, .4, .5]), "z": np.zeros(5, np.int8)}
    case("quantize axis", 13, there_and_back, VECTOR, per_axis)
    case("einsum", 12, node("Einsum", "x w", equation="ij,jk->ki"), VECTOR, {"w": noise(5, 4)})


def elementwise_cases():
    """Element-wise operators that are kept as they are."""
    since = {
        7: "Relu LeakyRelu Elu Selu Sigmoid HardSigmoid Tanh Exp Abs Neg Ceil Floor Reciprocal Softplus Softsign Cos",
        9: "Erf Sign Sinh Shrink", 10: "ThresholdedRelu", 11: "Round", 12: "Celu", 14: "HardSwish", 18: "Mish",
        20: "Gelu"}
    for opset, names in since.items():
        for op in names.split():
            case(op, opset, node(op, "x"), VECTOR)
    case("Sin", 7, node("Sin", "x"), VECTOR)
    for op in ("Log", "Sqrt"):
        case(op, 7, node(op, "x"), {"x": np.abs(noise(3, 5)) + 0.1})
    pair = {"x": noise(3, 5), "w": noise(5, seed=1)}
    for op in "Add Sub Mul Div PRelu".split():
        case(op, 7, node(op, "x w"), pair)
    for op in "Max Min Sum Mean".split():
        case(op, 7, node(op, "x w"), {"x": noise(3, 5), "w": noise(3, 5, seed=1)})
        case(op, 8, node(op, "x w"), pair)
    case("Pow", 7, node("Pow", "x w"), {"x": np.abs(noise(3, 5)), "w": noise(5, seed=1)})
    truth = {"y": TensorProto.BOOL}
    for opset in (7, 9):
        for op in ("Greater", "Less"):
            case(op, opset, node(op, "x w"), pair, outputs=truth)
    case("Equal", 7, node("Equal", "x w"), {"x": np.arange(3), "w": np.int64([0, 2, 2])}, outputs=truth)
    case("LessOrEqual", 12, node("LessOrEqual", "x w"), pair, outputs=truth)
    case("GreaterOrEqual", 12, node("GreaterOrEqual", "x w"), pair, outputs=truth)
    flags = {"x": np.array([0, 0, 1, 1], bool), "w": np.array([0, 1, 0, 1], bool)}
    case("logic", 7, [node("And", "x w", "a"), node("Or", "x a", "b"), node("Xor", "b w", "c"), node("Not", "c")],
         flags, outputs=truth)
    case("Where", 9, node("Where", "c x w"), {"c": noise(3, 5) > 0, **pair})
    case("Mod", 10, node("Mod", "x w", fmod=1), pair)
    case("IsNaN", 9, node("IsNaN", "x"), {"x": np.float32([1, np.nan])}, outputs=truth)
    case("IsInf", 10, node("IsInf", "x"), {"x": np.float32([1, np.inf, -np.inf])}, outputs=truth)
    for opset in (7, 9, 13):
        case("Cast", opset, [node("Cast", "x", "i", to=INT64), node("Cast", "i", to=1)], VECTOR)
    case("CastLike", 15, node("CastLike", "x i"), {**VECTOR, "i": np.arange(2)}, outputs={"y": INT64})


def tensor_cases():
    """Operators that move elements and are kept as they are."""
    case("Reshape", 7, node("Reshape", "x s"), IMAGE, {"s": np.array([0, -1])})
    case("Concat", 7, node("Concat", "x w", axis=1), {"x": noise(3, 5), "w": noise(3, 2)})
    case("Flatten", 7, node("Flatten", "x", axis=2), IMAGE)
    case("Transpose", 7, node("Transpose", "x", perm=[0, 2, 3, 1]), IMAGE)
    case("Identity", 7, node("Identity", "x"), IMAGE)
    case("Shape", 7, node("Shape", "x"), IMAGE, outputs={"y": INT64})
    case("Size", 7, node("Size", "x"), IMAGE, outputs={"y": INT64})
    case("Gather", 7, node("Gather", "x i", axis=1), VECTOR, {"i": np.array([4, 0])})
    case("Tile", 7, node("Tile", "x n"), VECTOR, {"n": np.array([2, 3])})
    case("Expand", 8, node("Expand", "x n"), VECTOR, {"n": np.array([2, 3, 5])})
    fill = numpy_helper.from_array(np.float32([2]), "fill")
    case("ConstantOfShape", 9, [node("ConstantOfShape", "n", "c", value=fill), node("Add", "c x")], VECTOR,
         {"n": np.array([3, 5])})
    hot = {"d": np.int64(3), "v": np.float32([0, 1])}
    case("OneHot", 9, node("OneHot", "i d v"), {"i": np.array([0, 2, -1, 7])}, hot)
    case("NonZero", 9, node("NonZero", "x"), {"x": np.float32([1, 0, 2])}, outputs={"y": INT64})
    indices = {"i": np.array([[0, 1, 0, 2, 1]]), "u": noise(1, 5, seed=3)}
    case("Scatter", 9, node("Scatter", "x i u"), VECTOR, indices)
    case("Scatter axis", 9, node("Scatter", "x i u", axis=1), VECTOR, indices)
    case("ScatterElements", 11, node("ScatterElements", "x i u"), VECTOR, indices)
    case("ScatterND", 11, node("ScatterND", "x i u"), VECTOR, {"i": np.array([[2], [0]]), "u": noise(2, 5, seed=3)})
    case("GatherElements", 11, node("GatherElements", "x i"), VECTOR, {"i": np.array([[0, 1, 0, 2, 1]])})
    case("GatherND", 11, node("GatherND", "x i"), VECTOR, {"i": np.array([[0, 1], [2, 3]])})
    case("Range", 11, node("Range", "a b c"), {"a": np.float32(1), "b": np.float32(4), "c": np.float32(0.5)})
    case("CumSum", 11, node("CumSum", "x a"), VECTOR, {"a": np.int64(1)})
    case("Compress", 9, node("Compress", "x c", axis=1), VECTOR, {"c": np.array([True, False, True])})
    case("Trilu", 14, node("Trilu", "x"), VECTOR)
    case("DepthToSpace", 7, node("DepthToSpace", "x", blocksize=2), IMAGE)
    case("DepthToSpace", 11, node("DepthToSpace", "x", blocksize=2, mode="CRD"), IMAGE)
    case("SpaceToDepth", 7, node("SpaceToDepth", "x", blocksize=2), {"x": noise(1, 2, 4, 6)})
    for opset in (7, 11, 12):
        case("ArgMax", opset, node("ArgMax", "x", axis=1), VECTOR, outputs={"y": INT64})
        case("ArgMin", opset, node("ArgMin", "x", keepdims=0), VECTOR, outputs={"y": INT64})
    boxes = {"b": np.sort(noise(1, 6, 4), axis=-1), "s": np.abs(noise(1, 1, 6))}
    case("NonMaxSuppression", 10, node("NonMaxSuppression", "b s n t"), boxes,
         {"n": np.array([3]), "t": np.float32([0.3])}, outputs={"y": INT64})


def graph_cases():
    """Graphs in attributes, other domains, and what cannot be raised at all."""
    def branch(name, low):
        made = [helper.make_node("Clip", ["x"], [f"{name}_c"], min=low),
                helper.make_node("Softmax", [f"{name}_c"], [f"{name}_y"])]
        return helper.make_graph(made, name, [], [helper.make_tensor_value_info(f"{name}_y", 1, [2, 3, 4])])

    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", 0.1), else_branch=branch("e", -0.1))
    for truth in (True, False):
        case(f"if {truth}", 10, chosen, {"c": np.array(truth), "x": noise(2, 3, 4)})
    scalar = lambda name, kind: helper.make_tensor_value_info(name, kind, [])
    body = helper.make_graph(
        [helper.make_node("Clip", ["h"], ["g"], max=0.5), helper.make_node("Add", ["g", "x"], ["g_max"]),
         helper.make_node("Identity", ["go"], ["on"])],
        "body", [scalar("i", INT64), scalar("go", TensorProto.BOOL), helper.make_tensor_value_info("h", 1, [3, 5])],
        [scalar("on", TensorProto.BOOL), helper.make_tensor_value_info("g_max", 1, [3, 5])])
    case("loop", 10, helper.make_node("Loop", ["n", "", "x"], ["y"], body=body), VECTOR, {"n": np.int64(3)})
    add = helper.make_graph(
        [helper.make_node("Add", ["h", "e"], ["s"]), helper.make_node("ReduceSum", ["e"], ["o"], axes=[0])], "body",
        [helper.make_tensor_value_info("h", 1, [5]), helper.make_tensor_value_info("e", 1, [5])],
        [helper.make_tensor_value_info("s", 1, [5]), helper.make_tensor_value_info("o", 1, [1])])
    scan = helper.make_node("Scan", ["z", "x"], ["y", "t"], body=add, num_scan_inputs=1)
    case("scan", 9, scan, VECTOR, {"z": np.zeros(5, np.float32)})
    gelu = helper.make_node("Gelu", ["h"], ["y"], domain="com.microsoft")
    made = model(10, [helper.make_node("Clip", ["x"], ["h"], min=-1.0), gelu], VECTOR)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    CASES.append(("other domain @10", made, VECTOR, TARGETS))
    refuse("unknown operator", 12, node("NegativeLogLikelihoodLoss", "x t"), {**VECTOR, "t": np.array([0, 1, 2])},
           reason="not known")


def run(made, inputs):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def with_shapes(made, inputs, outputs):
    """A copy whose inputs and outputs state the shapes they had, as the checker wants."""
    stated = onnx.ModelProto()
    stated.CopyFrom(made)
    arrays = {**inputs, **dict(zip((o.name for o in made.graph.output), outputs, strict=True))}
    for value in (*stated.graph.input, *stated.graph.output):
        if value.name in arrays:
            shape = helper.make_tensor_value_info(value.name, 1, arrays[value.name].shape).type.tensor_type.shape
            value.type.tensor_type.shape.CopyFrom(shape)
    return stated


def raised(program, made, to, folder):
    """The raised model, or None and the reason."""
    source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
    target.unlink(missing_ok=True)
    source.write_bytes(made.SerializeToString())
    done = subprocess.run([program, source, target, str(to)], capture_output=True, text=True)
    if done.returncode == 0:
        return onnx.load(target), ""
    if done.returncode == 1 and not target.exists():
        return None, done.stderr.strip()
    raise AssertionError(f"exit code {done.returncode}: {done.stderr}")


def check(program, made, inputs, to, folder):
    """Raises one model and compares it. Returns whether all outputs are equal in every bit."""
    expected = run(made, inputs)
    result, reason = raised(program, made, to, folder)
    assert result is not None, f"refused: {reason}"
    got = run(result, inputs)
    onnx.checker.check_model(with_shapes(result, inputs, expected), full_check=True)
    versions = [o.version for o in result.opset_import if o.domain == ""]
    assert versions == [to], f"opset {versions}"
    exact = True
    for got, want in zip(got, expected, strict=True):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), f"{got.dtype} {got.shape}"
        exact &= got.tobytes() == want.tobytes()
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)
    return exact


def refuses(program, made, reason, targets, folder):
    for to in targets:
        result, said = raised(program, made, to, folder)
        assert result is None, "raised"
        assert reason in said, f"reason: {said}"


def main():
    program, wanted = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    for build in (attribute_cases, matrix_cases, sampling_cases, inference_cases, layer_cases, elementwise_cases,
                  tensor_cases, graph_cases):
        build()
    count = failed = inexact = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, made, inputs, targets in (c for c in CASES if wanted in c[0]):
            for to in targets:
                count += 1
                try:
                    if not check(program, made, inputs, to, folder):
                        inexact += 1
                        print(f"close, not equal: {name} -> {to}")
                except Exception as error:  # Whatever the reason, the case has failed.
                    failed += 1
                    print(f"FAILED: {name} -> {to}: {str(error).strip()[:400]}")
        for name, made, reason, targets in (c for c in REFUSALS if wanted in c[0]):
            count += 1
            try:
                refuses(program, made, reason, targets, folder)
            except Exception as error:
                failed += 1
                print(f"FAILED: refusal of {name}: {str(error).strip()[:400]}")
    print(f"{count} checks, {failed} failed, {inexact} equal only within the tolerance")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

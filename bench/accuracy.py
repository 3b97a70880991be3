"""Compares accuracy with ONNX Runtime's own quantisers on the same images, and puts the table into a document.

    accuracy.py PROGRAM DOCUMENT.md ASSETS

PROGRAM is the `fpxint` command, built for release; ASSETS a folder with `cifar10/` (resnet20.onnx, resnet56.onnx, test1000.npz)
and `imagenet/` (mobilenet_v1_0.75.onnx, squeezenet1.1.onnx, val/, labels.csv). The table replaces what lies between the marks in
the document: top-1 and the share of images with the FP32 model's top-1 class, in per cent, and the time that quantisation takes.
ONNX Runtime's static quantisation is QDQ, signed and per channel, calibrated on the first 100 of the images (MinMax); ours sees
none. Needs numpy, onnx, onnxruntime and pillow.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from turns import write

MARKS = ("<!-- compared -->", "<!-- /compared -->")
CALIBRATED = 100
MEAN, DEVIATION = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)[:, :, None, None]
MODELS = [
    ("ResNet-20", "cifar10/resnet20.onnx", "cifar10", []),
    ("ResNet-56", "cifar10/resnet56.onnx", "cifar10", []),
    ("SqueezeNet 1.1", "imagenet/squeezenet1.1.onnx", "imagenet", []),
    ("MobileNetV1 0.75", "imagenet/mobilenet_v1_0.75.onnx", "imagenet", ["--preset", "tf"]),
]
INT8 = ["--weights", "int8x1", "--activations", "int8x1"]
WAYS = [
    ("int8x1, one term, nearest", INT8),
    ("weights int4x1, one term, nearest", ["--weights", "int4x1", "--activations", "int4x2"]),
    ("weights int4x1, one term, sum, mse", ["--weights", "int4x1", "--activations", "int4x2", "--rounding", "sum", "--clip", "mse"]),
    ("int4x2", ["--weights", "int4x2", "--activations", "int4x2"]),
    ("plan, at most 1.1 products (the default)", ["--target-products", "1.1"]),
    ("plan, at most 2.2 products", ["--target-products", "2.2"]),
    ("plan, at most 4 products", ["--target-products", "4"]),
]


def images(task, folder, preset):
    """Images as the models take them, and their classes."""
    if task == "cifar10":
        data = np.load(folder / "test1000.npz")
        pixels, classes = data["x"].transpose(0, 3, 1, 2).astype(np.float32), data["y"]
    else:
        rows = list(csv.reader((folder / "labels.csv").open()))
        rows = [row for row in rows if row[1].strip().isdigit()]
        pixels = np.stack([crop(folder / "val" / Path(row[0]).name) for row in rows])
        classes = np.array([int(row[1]) for row in rows])
    return (pixels / 127.5 - 1 if preset else (pixels / 255 - MEAN) / DEVIATION).astype(np.float32), classes


def crop(path):
    """The centre of an image, channels first."""
    image = Image.open(path).convert("RGB")
    left, top = (round((size - 224) / 2) for size in image.size)
    return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1)


class Calibration(quantization.CalibrationDataReader):
    """The first images."""

    def __init__(self, name, pixels):
        self.feeds = iter([{name: pixels[i : i + 1]} for i in range(CALIBRATED)])

    def get_next(self):
        return next(self.feeds, None)


def found(path, pixels):
    """The class of every image."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: image[None]})[0].ravel().argmax() for image in pixels])


def peers(model, pixels, folder):
    """ONNX Runtime's static and dynamic quantisation of a model, with the seconds they take."""
    prepared, static, dynamic = (folder / name for name in ("prepared.onnx", "static.onnx", "dynamic.onnx"))
    name = onnx.load(model, load_external_data=False).graph.input[0].name
    start = time.perf_counter()
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    signed = dict(activation_type=quantization.QuantType.QInt8, weight_type=quantization.QuantType.QInt8)
    quantization.quantize_static(str(prepared), str(static), Calibration(name, pixels), per_channel=True, **signed)
    middle = time.perf_counter()
    # Its integer convolution is for unsigned weights only.
    quantization.quantize_dynamic(str(prepared), str(dynamic), weight_type=quantization.QuantType.QUInt8)
    return (static, middle - start), (dynamic, time.perf_counter() - middle)


def ours(program, model, task, folder, preset, flags, scratch):
    """Top-1, agreement, products and seconds of a way to quantise."""
    output = str(scratch / "ours.onnx")
    run = lambda *line: json.loads(subprocess.run([program, *map(str, line), "--json", "--quiet"], check=True, capture_output=True).stdout)
    made = run("quantize", model, "-o", output, *flags)
    data = folder / "test1000.npz" if task == "cifar10" else folder
    report = run("eval", output, "--task", task, "--data", data, "--reference", model, *preset)
    return report["metrics"]["top1"], report["reference"]["agreement"], made["products"], made["seconds"]


def main():
    program, document, assets = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    lines = ["", "| model | | top-1 | agreement | products | seconds |", "|---|---|---|---|---|---|"]
    for title, file, task, preset in MODELS:
        model, folder = assets / file, assets / task
        pixels, classes = images(task, folder, preset)
        row = lambda way, top1, agreement, products, seconds: lines.append(
            f"| {title} | {way} | {100 * top1:.1f} | {agreement} | {products} | {seconds} |"
        )
        reference = found(model, pixels)
        row("FP32", np.mean(reference == classes), "", "", "")
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            for way, (path, seconds) in zip(("static, calibrated", "dynamic"), peers(model, pixels, scratch)):
                classes_found = found(path, pixels)
                agreement = f"{100 * np.mean(classes_found == reference):.1f}"
                row(f"ONNX Runtime {way}", np.mean(classes_found == classes), agreement, "", f"{seconds:.1f}")
            for way, flags in WAYS:
                top1, agreement, products, seconds = ours(program, model, task, folder, preset, flags, scratch)
                row(f"fpxint {way}", top1, f"{100 * agreement:.1f}", f"{products:.2f}", f"{seconds:.1f}")
    write(document, MARKS, [*lines, ""])
    print("\n".join(lines))


if __name__ == "__main__":
    main()

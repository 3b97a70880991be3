"""Classifies arrays with an ONNX model; written for ONNX Runtime, of which only the import is changed.

    python classify.py MODEL.onnx [IMAGES.npy]

Without images it makes some of the model's own input shape. Prints the class of every one and its score.
"""

from __future__ import annotations

import sys

import numpy as np

import fpxint as ort


def main(model: str, images: str | None) -> None:
    """Runs the model and prints what it finds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, sess_options=options, providers=["CPUExecutionProvider"])
    entry, score = session.get_inputs()[0], session.get_outputs()[0]
    if images is not None:
        x = np.load(images).astype(np.float32)
    else:
        shape = [size if isinstance(size, int) else 4 for size in entry.shape]
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
    (scores,) = session.run([score.name], {entry.name: x})
    for row in np.asarray(scores).reshape(len(x), -1):
        best = int(row.argmax())
        print(f"class {best:4d}  score {row[best]:.6f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)

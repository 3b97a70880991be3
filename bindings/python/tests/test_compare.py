"""`compare`, against the figures computed here."""

import numpy as np
import onnx
import onnxruntime
import pytest

import fpxint
import models


def test_the_figures_are_those_of_their_definitions(colour):
    runs = [{"x": models.images(n)} for n in (1, 3)]
    found = fpxint.compare(colour, colour, runs, "int4x2", "int4x2")
    reference = fpxint.InferenceSession(colour, default="fp32")
    model = fpxint.InferenceSession(colour)
    a, b = (np.concatenate([s.run(["scores"], feed)[0] for feed in runs]).astype(np.float64) for s in (reference, model))
    got = found["scores"]
    assert got.max_abs == np.abs(a - b).max()
    assert got.relative == pytest.approx(np.abs(a - b).max() / np.abs(a).max(), rel=1e-12)
    assert got.cosine == pytest.approx((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()), rel=1e-12)
    assert got.sqnr_db == pytest.approx(10 * np.log10((a * a).sum() / np.square(a - b).sum()), rel=1e-9)
    assert got.argmax_agreement == (a.argmax(axis=1) == b.argmax(axis=1)).mean()
    assert [o.name for o in found.outputs] == ["scores", "features"]
    assert str(found).splitlines()[0].startswith("name") and "scores" in found._repr_html_()
    assert found.to_dict()["outputs"][0]["relative"] == got.relative


def test_sessions_of_onnxruntime_are_references_too(colour, tmp_path):
    fpxint.quantize(colour, tmp_path / "a.onnx", "int8x2", "int8x2")
    theirs = onnxruntime.InferenceSession(colour)
    for model in (tmp_path / "a.onnx", (tmp_path / "a.onnx").read_bytes(), fpxint.InferenceSession(tmp_path / "a.onnx")):
        assert fpxint.compare(theirs, model, {"x": models.images(2)})["scores"].relative < 1e-3
    assert fpxint.compare(theirs, theirs, {"x": models.images(2)})["scores"].sqnr_db is None


def test_what_does_not_correspond_is_told(colour):
    x = {"x": models.images(1)}
    with pytest.raises(fpxint.InputError, match="no inputs"):
        fpxint.compare(colour, colour, [])
    with pytest.raises(fpxint.InputError, match="no output `features`"):
        less = onnx.load(colour)
        del less.graph.output[1]
        fpxint.compare(colour, less, x)
    with pytest.raises(fpxint.InputError, match="a session has"):
        fpxint.compare(colour, fpxint.InferenceSession(colour), x, "int4x2")
    with pytest.raises(KeyError):
        fpxint.compare(colour, colour, x)["other"]

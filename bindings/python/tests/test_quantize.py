"""`quantize`: artefacts, reports, progress, interruption, and what is left when it fails."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import onnxruntime
import pytest

import fpxint
import models


def test_artefacts_are_those_of_the_command(root, digits, tmp_path):
    program = os.environ.get("FPXINT_PROGRAM", root / "target" / "debug" / "fpxint")
    if not os.path.exists(program):
        pytest.skip("the command is not built")
    cases = [
        ({"weights": "int4x2", "activations": "int4x2"}, ["--weights=int4x2", "--activations=int4x2"]),
        ({}, []),
        ({"target_products": 1.5, "rounding": "sum"}, ["--target-products=1.5", "--rounding=sum"]),
        ({"weights": "int4x1", "clip": "mse", "exclude": "head"}, ["--weights=int4x1", "--clip=mse", "--exclude=head"]),
        ({"weights": "int4x2", "symmetry": "asymmetric"}, ["--weights=int4x2", "--symmetry=asymmetric"]),
        (
            {"weights": "int4x2", "rotation": "hadamard", "activation_clip": "laplace", "bias_correction": "synthetic"},
            ["--weights=int4x2", "--rotation=hadamard", "--activation-clip=laplace", "--bias-correction=synthetic"],
        ),
    ]
    for i, (arguments, flags) in enumerate(cases):
        ours, theirs = tmp_path / f"ours{i}.onnx", tmp_path / f"theirs{i}.onnx"
        report = fpxint.quantize(digits, ours, **arguments)
        command = [program, "quantize", digits, "-o", theirs, "--json", *flags]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert ours.read_bytes() == theirs.read_bytes()
        told = __import__("json").loads(done.stdout)
        got = report.to_dict()
        assert {**got, "seconds": 0} == {**told, "seconds": 0}
        if "rotation" in arguments:
            image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
            made, read = fpxint.InferenceSession(digits, **arguments), fpxint.InferenceSession(ours)
            assert made.run(None, {"input": image})[0].tobytes() == read.run(None, {"input": image})[0].tobytes()


def test_artefacts_are_plain_onnx(colour, tmp_path):
    x = models.images(2)
    want = onnxruntime.InferenceSession(colour).run(None, {"x": x})[0]
    for precision, largest in (("int4x2", 2e-2), ("int8x2", 1e-4)):
        artefact = tmp_path / f"{precision}.onnx"
        fpxint.quantize(colour, artefact, precision, "int8x2")
        onnx.checker.check_model(str(artefact), full_check=True)
        theirs = onnxruntime.InferenceSession(artefact).run(None, {"x": x})[0]
        ours = fpxint.InferenceSession(artefact).run(None, {"x": x})[0]
        assert np.abs(theirs - want).max() <= largest * np.abs(want).max()
        assert np.abs(theirs - ours).max() <= 2e-3 * np.abs(theirs).max()


def test_the_report_tells_of_every_layer(colour, tmp_path):
    report = fpxint.quantize(onnx.load(colour), tmp_path / "out.onnx", weights="int4x2", exclude=["second"])
    assert [layer["name"] for layer in report.layers] == ["first", "head"]
    assert report.skipped == [{"name": "second", "reason": "excluded"}]
    for layer in report.layers:
        assert 0 < layer["max_error"] <= layer["bound"]
    assert report.bytes_out == (tmp_path / "out.onnx").stat().st_size
    lines = str(report).splitlines()
    assert lines[0].split()[:2] == ["layer", "op"] and "stays in FP32: second: excluded" in lines
    page = report._repr_html_()
    assert page.count("<tr>") == 3 and "second" in page and "first" in page
    figures = report.to_dict()
    figures["layers"].clear()
    assert len(report.layers) == 2 and "2 layers" in repr(report)


def test_names_are_escaped_in_html(tmp_path):
    proto = models.product()
    proto.graph.node[0].name = "<script>&"
    page = fpxint.quantize(proto, weights="int4x2")._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;&amp;" in page


def test_nothing_is_written_without_an_output(colour, tmp_path):
    before = sorted(tmp_path.iterdir())
    report = fpxint.quantize(colour.read_bytes(), weights="int4x2")
    assert report.bytes_out > 0 and sorted(tmp_path.iterdir()) == before


def test_plans_are_written_and_read(colour, tmp_path):
    plan = tmp_path / "plan.toml"
    made = fpxint.quantize(colour, tmp_path / "a.onnx", plan=plan)
    assert plan.exists() and all(layer["expected_error"] > 0 for layer in made.layers)
    fpxint.quantize(colour, tmp_path / "b.onnx", plan=plan)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    planned = fpxint.InferenceSession(colour, plan=plan)
    x = {"x": models.images(1)}
    assert np.array_equal(planned.run(None, x)[0], fpxint.InferenceSession(tmp_path / "a.onnx").run(None, x)[0])


def test_progress_is_told_in_order(colour, tmp_path):
    told = []
    fpxint.quantize(colour, tmp_path / "a.onnx", progress=lambda *step: told.append(step))
    assert {what for what, _, _ in told} <= {"observing", "planning", "expanding"}
    assert told[-1] == ("expanding", 3, 3)
    for (what, done, _), (next_what, next_done, _) in zip(told, told[1:]):
        assert what != next_what or done <= next_done
    fpxint.quantize(colour, tmp_path / "b.onnx", progress=True)


def test_a_progress_that_raises_ends_the_work(tmp_path):
    def stop(what, done, total):
        raise ZeroDivisionError("enough")

    output = tmp_path / "a.onnx"
    with pytest.raises(ZeroDivisionError, match="enough"):
        fpxint.quantize(models.deep(30, 256), output, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_the_work(tmp_path):
    source, output = tmp_path / "deep.onnx", tmp_path / "out.onnx"
    onnx.save(models.deep(60, 512), source)
    script = "import sys, fpxint; print('ready', flush=True); fpxint.quantize(sys.argv[1], sys.argv[2], threads=1)"
    command = [sys.executable, "-c", script, str(source), str(output)]
    # A shell's background jobs ignore the signal, and what they start does too.
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, preexec_fn=heed, **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        start = time.perf_counter()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        took = time.perf_counter() - start
    assert process.returncode == -signal.SIGINT or "KeyboardInterrupt" in errors, errors
    assert took < 15, f"{took:.1f} s"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep.onnx"]


def test_what_is_wrong_is_told(colour, digits, tmp_path):
    artefact = tmp_path / "a.onnx"
    fpxint.quantize(colour, artefact, "int4x2")
    for error, words, arguments in [
        (fpxint.InputError, "expanded already", {"model": artefact}),
        (fpxint.PrecisionError, "`four` is not a precision", {"model": colour, "weights": "four"}),
        (fpxint.PrecisionError, "int4x9", {"model": colour, "weights": "int4x9"}),
        (fpxint.InputError, "cannot be used with", {"model": colour, "tolerance": 0.1, "target_products": 1.0}),
        (fpxint.InputError, "no layer", {"model": colour, "exclude": "nothing"}),
        (fpxint.InputError, "exclude", {"model": colour, "exclude": "("}),
        (fpxint.InputError, "rounding", {"model": colour, "rounding": "up"}),
        (fpxint.FileError, "nowhere", {"model": tmp_path / "nowhere"}),
        (fpxint.FileError, "cannot be written", {"model": colour, "output": tmp_path / "no" / "o.onnx", "weights": "int4x2"}),
        (fpxint.InputError, "not a file", {"model": colour, "output": tmp_path}),
        (fpxint.ModelError, "<bytes>", {"model": b"nothing"}),
        (fpxint.LimitError, "nodes", {"model": colour, "limits": fpxint.Limits(max_nodes=1)}),
    ]:
        with pytest.raises(error, match=words) as told:
            fpxint.quantize(**arguments)
        assert "\n" not in str(told.value)


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    proto = models.product()
    values = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values[3, 5] = np.nan
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "w"))
    kept = tmp_path / "a.onnx"
    kept.write_bytes(b"before")
    with pytest.raises(fpxint.ModelError, match="`layer` holds NaN"):
        fpxint.quantize(proto, kept, "int4x2")
    assert kept.read_bytes() == b"before"


def test_a_model_may_be_replaced_by_its_artefact(colour, tmp_path):
    fpxint.quantize(colour, tmp_path / "want.onnx", "int4x2")
    fpxint.quantize(colour, colour, "int4x2")
    assert colour.read_bytes() == (tmp_path / "want.onnx").read_bytes()

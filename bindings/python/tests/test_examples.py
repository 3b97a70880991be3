"""The examples and the READMEs' Python, run as they are written."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import models

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(example, *arguments):
    """What an example prints."""
    command = [sys.executable, str(example), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_script_for_onnxruntime_needs_only_its_import_changed(digits, tmp_path):
    ours = EXAMPLES / "classify.py"
    text = ours.read_text()
    assert text.count("fpxint") == 1
    theirs = tmp_path / "classify.py"
    theirs.write_text(text.replace("import fpxint as ort", "import onnxruntime as ort"))
    with np.load(digits.with_name("digits_test.npz")) as data:
        x = data["x"][:100].reshape(-1, 1, 8, 8).astype(np.float32) / 16
    images = tmp_path / "images.npy"
    np.save(images, x)
    a, b = (
        [(int(line.split()[1]), float(line.split()[3])) for line in run(script, digits, images).splitlines()]
        for script in (theirs, ours)
    )
    assert len(a) == len(b) == 100
    assert sum(x[0] == y[0] for x, y in zip(a, b)) >= 98
    assert max(abs(x[1] - y[1]) for x, y in zip(a, b)) < 0.05 * max(abs(x[1]) for x in a)


def test_the_server_answers_with_the_bits_of_its_session(digits):
    assert "the same bits" in run(EXAMPLES / "serve.py", digits, "--check")


def test_embeddings_of_a_small_encoder(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: i for i, word in enumerate("[PAD] [UNK] a man is playing guitar someone plays market".split())}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    onnx.save(models.encoder(), tmp_path / "encoder.onnx")
    printed = run(EXAMPLES / "embeddings.py", tmp_path / "encoder.onnx", tmp_path / "tokenizer.json")
    pairs = [[float(v) for v in line.split()[3:]] for line in printed.splitlines()[1:]]
    assert len(pairs) == 3
    for int8, int12, fp32 in pairs:
        assert abs(int8 - fp32) < 0.02 and abs(int12 - fp32) < 5e-4


def test_the_convergence_plot(tmp_path):
    pytest.importorskip("matplotlib")
    printed = run(EXAMPLES / "convergence.py", tmp_path / "plot.png")
    assert printed.count("INT") == 3 and (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def blocks(text):
    """Python of a Markdown text: fenced as such, or indented and beginning with an import."""
    yield from re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for block in re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE):
        lines = [line[4:] for line in block.strip("\n").splitlines()]
        if lines and re.match(r"import |from .* import ", lines[0]):
            yield "\n".join(lines)


@pytest.mark.parametrize("readme", ["README.md", "bindings/python/README.md"])
def test_the_python_of_the_readme_runs_as_written(root, readme, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    proto = models.colour()
    proto.graph.input[0].type.tensor_type.shape.CopyFrom(
        onnx.helper.make_tensor_value_info("x", 1, ["batch", 3, 16, 16]).type.tensor_type.shape
    )
    onnx.save(proto, "model.onnx")
    found = list(blocks((root / readme).read_text()))
    assert found
    for i, block in enumerate(found):
        Path(f"block{i}.py").write_text(block)
        runpy.run_path(f"block{i}.py")


def test_the_examples_are_typed():
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, sorted(EXAMPLES.glob("*.py")))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES, env={**os.environ, "MYPYPATH": ""})
    assert done.returncode == 0, done.stdout

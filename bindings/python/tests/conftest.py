"""Folders and models that the tests share."""

from pathlib import Path

import onnx
import pytest

import models

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture
def digits() -> Path:
    """The network of the repository that reads digits: input (n, 1, 8, 8), output (n, 10)."""
    return ROOT / "assets" / "digits.onnx"


@pytest.fixture
def colour(tmp_path) -> Path:
    """A file of `models.colour`."""
    path = tmp_path / "colour.onnx"
    onnx.save(models.colour(), path)
    return path

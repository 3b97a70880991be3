"""`compare`: how close a model's outputs are to a reference's."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Mapping, NamedTuple, Optional, Protocol, Sequence, Union

import numpy as np

from fpxint import _fpxint
from fpxint.errors import InputError
from fpxint.session import InferenceSession

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from fpxint.models import Model


class Runnable(Protocol):
    """Anything that runs as a session of ONNX Runtime does."""

    def run(self, output_names: Any, input_feed: Any) -> Any:
        """The outputs of these names."""

    def get_outputs(self) -> Any:
        """The outputs: `.name` of each."""


class OutputCloseness(NamedTuple):
    """Differences between a reference `a` and a model's `b` in one output, over all inputs."""

    name: str
    """Its name."""
    max_abs: float
    """Largest `|a - b|`."""
    relative: float
    """Largest `|a - b|` relative to the largest `|a|`."""
    cosine: float
    """Cosine of the angle between the two."""
    sqnr_db: Optional[float]
    """Signal to quantisation noise in decibels; `None` where there is no noise."""
    argmax_agreement: float
    """Share of rows (last axis) whose largest element is at the same place."""


class Comparison:
    """How close a model is to a reference, output by output. It prints as a table."""

    def __init__(self, outputs: list[OutputCloseness]) -> None:
        self.outputs = outputs
        """One entry an output, in the reference's order."""

    def __getitem__(self, name: str) -> OutputCloseness:
        """The figures of an output."""
        for output in self.outputs:
            if output.name == name:
                return output
        raise KeyError(name)

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The figures as `fpxint compare --json` prints them."""
        return {"outputs": [output._asdict() for output in self.outputs]}

    def _rows(self) -> list[list[str]]:
        rows = [list(OutputCloseness._fields)]
        for o in self.outputs:
            noise = "-" if o.sqnr_db is None else f"{o.sqnr_db:.1f}"
            figures = [f"{o.max_abs:.3e}", f"{o.relative:.3e}", f"{o.cosine:.6f}", noise]
            rows.append([o.name, *figures, f"{100 * o.argmax_agreement:.2f} %"])
        return rows

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[c]) for row in rows) for c in range(len(rows[0]))]
        pad = [str.ljust] + [str.rjust] * (len(widths) - 1)
        return "\n".join("  ".join(p(cell, w) for p, cell, w in zip(pad, row, widths)).rstrip() for row in rows)

    def __repr__(self) -> str:
        return f"<fpxint.Comparison: {', '.join(f'{o.name} {o.relative:.3e}' for o in self.outputs)}>"

    def _repr_html_(self) -> str:
        head, *body = self._rows()
        lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
        lines += ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in body]
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def compare(
    reference: "Union[Model, Runnable]",
    model: "Union[Model, Runnable]",
    inputs: "Union[Mapping[str, ArrayLike], Sequence[Mapping[str, ArrayLike]]]",
    weights: Optional[str] = None,
    activations: Optional[str] = None,
) -> Comparison:
    """Runs two models on the same inputs.

    Args:
        reference: path, bytes or `onnx.ModelProto`, or a session, ONNX Runtime's included. An FP32 file runs in FP32.
        model: likewise; the precisions apply to it.
        inputs: arrays by name of the input, or a list of such for several runs.
        weights: precision that an FP32 model is expanded at; without one, and without activations, it runs in FP32.
        activations: precision of the activations.

    Raises:
        InputError: where an output of the reference is missing or of another shape; what `InferenceSession` raises.
    """
    runs = [inputs] if isinstance(inputs, Mapping) else list(inputs)
    if not runs:
        raise InputError("no inputs to compare on")
    a = _session(reference, None, None)
    b = _session(model, weights, activations)
    names = [output.name for output in a.get_outputs()]
    there = {output.name for output in b.get_outputs()}
    for name in names:
        if name not in there:
            raise InputError(f"the model has no output `{name}`, which the reference has")
    tallies = [_fpxint.Tally() for _ in names]
    for feed in runs:
        for tally, name, x, y in zip(tallies, names, a.run(names, feed), b.run(names, feed)):
            x, y = np.asarray(x), np.asarray(y)
            if x.shape != y.shape:
                raise InputError(f"output `{name}` has shape {list(x.shape)} and {list(y.shape)}")
            tally.add(_plain(x), _plain(y))
    return Comparison([OutputCloseness(**tally.closeness(name)) for tally, name in zip(tallies, names)])


def _plain(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _session(model: Any, weights: Optional[str], activations: Optional[str]) -> Any:
    if hasattr(model, "run") and hasattr(model, "get_outputs"):
        if weights is not None or activations is not None:
            raise InputError("a session has the precisions that it was loaded with")
        return model
    return InferenceSession(model, weights, activations, default="fp32")

"""`quantize`: an FP32 model to one plain ONNX file of integer terms, without calibration data."""

from __future__ import annotations

import html
import json
import os
from typing import TYPE_CHECKING, Any, Iterable, Optional, TypedDict, Union, cast

from fpxint import _fpxint, models
from fpxint.errors import PrecisionError
from fpxint.models import Limits
from fpxint.progress import Progress, close, watcher

if TYPE_CHECKING:
    from fpxint.models import Model


class _LayerFigures(TypedDict):
    name: str
    op: str
    weights: str
    activations: str
    bound: float
    max_error: Optional[float]
    sparse_fraction: float
    asymmetric: bool
    rotation: Optional[int]
    products: int


class LayerReport(_LayerFigures, total=False):
    """What was made of a layer.

    `bound` is the largest error that the series can have anywhere in the layer and `max_error` the largest it has;
    `products` counts 8-bit integer products; `expected_error` and `certified_error` are the relative errors of the layer's
    output that a plan expected: the likely one, and the largest for any input relative to `|w|_1 max|a|`.
    """

    unclipped: str
    expected_error: float
    certified_error: float


class SkippedNode(TypedDict):
    """A node with constant weights that stays in FP32."""

    name: str
    reason: str


class _Figures(TypedDict):
    seconds: float
    bytes_in: int
    bytes_out: int
    products: float
    mean_weight_bits: float
    opset: int
    storage: str
    layers: list[LayerReport]
    skipped: list[SkippedNode]


class ReportDict(_Figures, total=False):
    """A report as `fpxint quantize --json` prints it.

    `products` is the work in 8-bit integer products, relative to one of them in every layer; `data` is the file beside the
    model that holds its large tensors, where one file could not.
    """

    expected_error: float
    note: str
    data: str


class Report:
    """What `quantize` made. It prints as a table; `layers` has one entry a layer."""

    def __init__(self, figures: ReportDict, text: str) -> None:
        self._figures = figures
        self._text = text

    @property
    def layers(self) -> list[LayerReport]:
        """The expanded layers, in the order of the graph."""
        return self._figures["layers"]

    @property
    def skipped(self) -> list[SkippedNode]:
        """Nodes with constant weights that stay in FP32, each with its reason."""
        return self._figures["skipped"]

    @property
    def products(self) -> float:
        """8-bit integer products, relative to one in every layer."""
        return self._figures["products"]

    @property
    def bytes_out(self) -> int:
        """Size of the artefact."""
        return self._figures["bytes_out"]

    def to_dict(self) -> ReportDict:
        """Everything, as `fpxint quantize --json` prints it."""
        return cast(ReportDict, json.loads(json.dumps(self._figures)))

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        figures = self._figures
        return (
            f"<fpxint.Report: {len(figures['layers'])} layers, {figures['mean_weight_bits']:.2f} bits a weight, "
            f"{figures['products']:.2f} products, {figures['bytes_out']} bytes>"
        )

    def _repr_html_(self) -> str:
        columns = ("name", "op", "weights", "activations", "max_error", "bound", "products", "expected_error")
        shown = [c for c in columns if any(c in layer for layer in self.layers)]
        head = "".join(f"<th>{c.replace('_', ' ')}</th>" for c in shown)
        rows = "".join(
            "<tr>" + "".join(f"<td>{_cell(layer.get(c))}</td>" for c in shown) + "</tr>" for layer in self.layers
        )
        left = "".join(
            f"<li>{html.escape(node['name'])}: {html.escape(node['reason'])}</li>" for node in self.skipped
        )
        summary = html.escape(self._text.rstrip().rsplit("\n", 1)[-1])
        stays = f"<p>stays in FP32:</p><ul>{left}</ul>" if left else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{stays}<p>{summary}</p>"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return html.escape(f"{value:.3e}" if isinstance(value, float) else str(value))


def quantize(
    model: "Model",
    output: Union[None, str, "os.PathLike[str]"] = None,
    weights: Optional[str] = None,
    activations: Optional[str] = None,
    tolerance: Optional[float] = None,
    target_products: Optional[float] = None,
    exclude: Union[str, Iterable[str]] = (),
    progress: Progress = None,
    *,
    target_bits: Optional[float] = None,
    granularity: Optional[str] = None,
    rounding: Optional[str] = None,
    clip: Optional[str] = None,
    symmetry: Optional[str] = None,
    activation_clip: Optional[str] = None,
    rotation: Optional[str] = None,
    bias_correction: Optional[str] = None,
    plan: Union[None, str, "os.PathLike[str]"] = None,
    threads: Optional[int] = None,
    limits: Optional[Limits] = None,
) -> Report:
    """Expands the layers of an FP32 model into integer terms, and writes the result as one plain ONNX file.

    Without a precision every layer gets its own: the planner gives the layers that matter most twelve bits, within 1.1 times
    the cost of 8-bit products everywhere, or what `tolerance`, `target_products` or `target_bits` asks for.

    Args:
        model: path, bytes or `onnx.ModelProto`; FP32, FP16 or BF16. Tensors in other files need the path.
        output: file to write; it appears whole or not at all. Without one nothing is written.
        weights: precision of the weights, bits per term x terms, as in "int4x2".
        activations: precision of what enters the layers, kept in the file.
        tolerance: largest expected relative error of any layer's output, at the fewest products.
        target_products: most 8-bit products, 1 being one everywhere, at the least error.
        exclude: regular expressions; layers whose name one matches stay in FP32.
        progress: `True` for tqdm where it is installed, or a callable `progress(what, done, total)`.
        target_bits: most bits a weight in the mean, at the least error.
        granularity: which weights share a scale: "channel" (default), "tensor" or "group:G", G inputs of a channel.
        rounding: "nearest" (default), or "sum": the errors of an output channel cancel.
        clip: "none" (default), "laplace" or "mse": what lies beyond the clip becomes a sparse integer part.
        symmetry: "symmetric" or "asymmetric": whether weights have a bias a channel beside their terms; by default plans choose.
        activation_clip: "none" or "laplace": the same of activations; by default plans clip rows that are not rotated.
        rotation: "none" or "hadamard": whether what enters matrix products is rotated; by default it is in plans of models that are mostly these.
        bias_correction: "none" or "synthetic": whether biases are corrected; by default plans do, but of token models.
        plan: TOML file of precisions by layer: read where it is there, otherwise written.
        threads: threads to use; all by default.
        limits: what the model may hold.

    Returns:
        The report: errors, bounds, sizes and costs by layer.

    Raises:
        ModelError, LimitError, FileError, InputError, PrecisionError; KeyboardInterrupt where Ctrl-C ended it. In every case
        a file that was at `output` is still there.
    """
    _check_precisions(weights, activations)
    flags = models.flags(
        limits,
        weights=weights,
        activations=activations,
        tolerance=tolerance,
        target_products=target_products,
        target_bits=target_bits,
        exclude=[exclude] if isinstance(exclude, str) else exclude,
        granularity=granularity,
        rounding=rounding,
        clip=clip,
        symmetry=symmetry,
        activation_clip=activation_clip,
        rotation=rotation,
        bias_correction=bias_correction,
        plan=plan,
        threads=threads,
        output=output,
        dry_run=output is None,
    )
    watch = watcher(progress)
    try:
        figures, text = _fpxint.quantize(models.source(model), flags, watch)
    finally:
        close(watch)
    return Report(cast(ReportDict, json.loads(figures)), text)


def _check_precisions(*texts: Optional[str]) -> None:
    """Raises for a text that is no precision, which the library would call a bad flag."""
    for text in texts:
        if text is not None:
            fault = _fpxint.precision_fault(text)
            if fault is not None:
                raise PrecisionError(fault)

"""`InferenceSession`: models run with ONNX Runtime's interface."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Union

import numpy as np

from fpxint import _fpxint, models
from fpxint.models import Limits
from fpxint.progress import Progress, close, watcher
from fpxint.quantization import _check_precisions

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from fpxint.models import Model

_ELEMENTS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float32,
    "tensor(bfloat16)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class NodeArg:
    """An input or output of a model."""

    def __init__(self, name: str, shape: list[Union[int, str, None]], type: str) -> None:
        self.name = name
        """Its name."""
        self.shape = shape
        """Its dimensions: a number, the name of a size that varies from run to run, or `None` for one without a name."""
        self.type = type
        """Its type in ONNX Runtime's words, as in "tensor(float)"."""

    def __repr__(self) -> str:
        return f"NodeArg(name={self.name!r}, type={self.type!r}, shape={self.shape!r})"


class SessionOptions:
    """The options of ONNX Runtime's sessions that mean something here; others may be set and change nothing."""

    def __init__(self) -> None:
        self.intra_op_num_threads = 0
        """Threads of a run; 0 for all."""


class InferenceSession:
    """A model ready to run, as `onnxruntime.InferenceSession` is.

    Results do not depend on threads, batch split or kernel, to the bit, and an image or row does not depend on what else is in
    its batch. `run` may be called from many threads at once, and releases Python's lock.

    Args:
        path_or_bytes: path, bytes or `onnx.ModelProto`: an FP32 model, expanded in memory, or a file that `quantize` wrote.
        weights: precision of an FP32 model's weights, as in "int4x2".
        activations: precision of the activations; by default that of the file.
        threads: threads of a run; all by default.
        default: precision of an FP32 model of which nothing else is said; with "fp32" it runs unexpanded.
        sess_options: `SessionOptions`, or ONNX Runtime's own: their `intra_op_num_threads`.
        providers: taken for the sake of ONNX Runtime's scripts; the CPU is what there is.
        weight_terms: run only the first terms of the weights.
        activation_terms: quantise activations afresh at so many terms.
        rounding, clip, symmetry, rotation, bias_correction, plan: as of `quantize`, for an FP32 model.
        activation_clip: as of `quantize`; by default that of the file.
        progress: as of `quantize`.
        limits: what the model may hold.

    Raises:
        ModelError, LimitError, FileError, InputError, PrecisionError.
    """

    def __init__(
        self,
        path_or_bytes: "Model",
        weights: Optional[str] = None,
        activations: Optional[str] = None,
        threads: Optional[int] = None,
        *,
        default: str = "int4x2",
        sess_options: Any = None,
        providers: Optional[Sequence[Any]] = None,
        weight_terms: Optional[int] = None,
        activation_terms: Optional[int] = None,
        rounding: Optional[str] = None,
        clip: Optional[str] = None,
        symmetry: Optional[str] = None,
        activation_clip: Optional[str] = None,
        rotation: Optional[str] = None,
        bias_correction: Optional[str] = None,
        plan: Union[None, str, "os.PathLike[str]"] = None,
        progress: Progress = None,
        limits: Optional[Limits] = None,
    ) -> None:
        del providers
        if threads is None and sess_options is not None:
            threads = getattr(sess_options, "intra_op_num_threads", 0) or None
        _check_precisions(*(text for text in (weights, activations, default) if text != "fp32"))
        flags = models.flags(
            limits,
            weights=weights,
            activations=activations,
            threads=threads,
            weight_terms=weight_terms,
            activation_terms=activation_terms,
            rounding=rounding,
            clip=clip,
            symmetry=symmetry,
            activation_clip=activation_clip,
            rotation=rotation,
            bias_correction=bias_correction,
            plan=plan,
        )
        watch = watcher(progress)
        try:
            self._session = _fpxint.Session(models.source(path_or_bytes), flags, default, watch)
        finally:
            close(watch)
        self._inputs = [NodeArg(*described) for described in self._session.inputs()]
        self._outputs = [NodeArg(*described) for described in self._session.outputs()]
        self._elements = {node.name: _ELEMENTS.get(node.type) for node in self._inputs}

    def run(
        self,
        output_names: Optional[Sequence[str]],
        input_feed: "Mapping[str, ArrayLike]",
        run_options: Any = None,
    ) -> "list[NDArray[Any]]":
        """Runs the model.

        Args:
            output_names: outputs wanted, in this order; `None` for all.
            input_feed: one array for every input, of its element type and shape. Arrays of float32 in C order are read where
                they lie, so they must not be written to during the run. float16 is taken where the model states it.
            run_options: taken for the sake of ONNX Runtime's scripts, and not used.

        Returns:
            The outputs as arrays of their own. Half-precision ones are float32.

        Raises:
            InputError: for a name, type or shape that does not fit; RunError: naming the node that failed.
        """
        del run_options
        feed = {name: self._array(name, value) for name, value in input_feed.items()}
        return self._session.run(None if output_names is None else list(output_names), feed)

    def _array(self, name: str, value: "ArrayLike") -> "NDArray[Any]":
        element = self._elements.get(name)
        if not isinstance(value, np.ndarray):
            return np.asarray(value, dtype=element)
        if value.dtype == np.float16 and element is np.float32:
            return value.astype(np.float32)
        if not (value.dtype.isnative and value.flags.aligned):
            return np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
        return value

    def get_inputs(self) -> list[NodeArg]:
        """The inputs: `.name`, `.shape` and `.type` of each."""
        return list(self._inputs)

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, as `get_inputs`; shapes that the file leaves out are inferred."""
        return list(self._outputs)

    def get_providers(self) -> list[str]:
        """What the model runs on, in ONNX Runtime's words."""
        return ["CPUExecutionProvider"]

    def get_layers(self) -> list[tuple[str, str, str]]:
        """Name, precision of the weights and of the activations of every expanded layer; none where the model runs in FP32."""
        return self._session.layers()

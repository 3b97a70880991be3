"""Neural networks as series of low-bit integer terms: quantised without calibration data, run on integer units.

* `quantize` turns an FP32 ONNX model into one plain ONNX file that holds every precision up to the one asked for.
* `InferenceSession` runs an FP32 model or such a file, with the interface of ONNX Runtime's class of this name.
* `Series` is the expansion of one array; `compare` says how close a model is to a reference.

Every failure is an `fpxint.Error` with a message of one line; its subclasses are in `fpxint.errors`.
"""

from fpxint._fpxint import kernels as _kernels
from fpxint._fpxint import version as __version__
from fpxint.comparison import Comparison, OutputCloseness, compare
from fpxint.errors import (
    Error,
    FileError,
    InputError,
    LimitError,
    ModelError,
    PrecisionError,
    RunError,
    SizeError,
)
from fpxint.expansion import Saturation, Series
from fpxint.models import Limits
from fpxint.quantization import LayerReport, Report, ReportDict, SkippedNode, quantize
from fpxint.session import InferenceSession, NodeArg, SessionOptions


def kernels() -> list[str]:
    """Names of the kernels that this CPU has, the fastest first; the environment variable FPXINT_KERNEL chooses one."""
    return list(_kernels)


__all__ = [
    "Comparison",
    "Error",
    "FileError",
    "InferenceSession",
    "InputError",
    "LayerReport",
    "LimitError",
    "Limits",
    "ModelError",
    "NodeArg",
    "OutputCloseness",
    "PrecisionError",
    "Report",
    "ReportDict",
    "RunError",
    "Saturation",
    "Series",
    "SessionOptions",
    "SizeError",
    "SkippedNode",
    "__version__",
    "compare",
    "kernels",
    "quantize",
]

"""Arguments that name a model, and flags of the library."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Iterable, Optional, Union

from fpxint.errors import InputError

if TYPE_CHECKING:
    import onnx

    Model = Union[str, "os.PathLike[str]", bytes, onnx.ModelProto]
    """A path, the bytes of a model, or an `onnx.ModelProto`."""

Flag = Union[None, bool, int, float, str, "os.PathLike[str]", Iterable[str]]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a model may hold; `None` leaves the library's limit. A model beyond one is refused before memory is taken."""

    max_bytes: Optional[int] = None
    """Bytes in all, those of other files included."""
    max_tensor_elements: Optional[int] = None
    """Elements of one tensor."""
    max_nodes: Optional[int] = None
    """Nodes, those of nested graphs included."""
    max_nesting: Optional[int] = None
    """Depth of protobuf messages within messages; at most 100."""


def source(model: "Model") -> Union[str, bytes]:
    """The model as the extension takes it."""
    if isinstance(model, bytes):
        return model
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    serialize = getattr(model, "SerializeToString", None)
    if serialize is None:
        raise InputError(f"a model is a path, bytes or an onnx.ModelProto, but this is a {type(model).__name__}")
    made = serialize()
    if not isinstance(made, bytes):
        raise InputError(f"{type(model).__name__}.SerializeToString() returned no bytes")
    return made


def flags(limits: Optional[Limits] = None, **given: Flag) -> list[str]:
    """Flags of the command line; what is `None` or false is left out, what is a list is repeated."""
    bounds = dataclasses.asdict(limits) if limits is not None else {}
    made = []
    for name, value in {**bounds, **given}.items():
        flag = "--" + name.replace("_", "-")
        if value is None or value is False:
            continue
        if value is True:
            made.append(flag)
        elif isinstance(value, (str, os.PathLike, int, float)):
            made.append(f"{flag}={os.fspath(value) if isinstance(value, os.PathLike) else value}")
        else:
            made.extend(f"{flag}={one}" for one in value)
    return made

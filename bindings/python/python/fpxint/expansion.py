"""`Series`: one array as a sum of low-bit integer terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

import numpy as np

from fpxint import _fpxint
from fpxint.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class Saturation(NamedTuple):
    """The sparse integer part of a clipped array: what lies beyond the range of the terms."""

    indices: "NDArray[np.int64]"
    """Places in row-major order, ascending: int64 of shape (k,)."""
    values: "NDArray[np.int32]"
    """Integers in units of the first scale, none of them 0: int32 of shape (k,)."""


class Series:
    """An array `x` expanded into `terms` integer terms of `bits` bits (theorem 1 of FP=xINT):

        x = bias + scales[0] * saturation + scales[0] * terms[0] + .. + scales[n-1] * terms[n-1] + error

    Each scale is the one before divided by `2**bits`, exactly, so a further term divides the error by that. Make one with
    `Series.expand`.
    """

    def __init__(self, expansion: _fpxint.Expansion, shape: tuple[int, ...], axis: Optional[int]) -> None:
        self._expansion = expansion
        self._shape = shape
        self._axis = axis
        self._bits, self._order = expansion.precision()

    @classmethod
    def expand(
        cls,
        array: "ArrayLike",
        bits: int,
        terms: int,
        axis: Optional[int] = None,
        clip: Optional[str] = None,
        rounding: str = "nearest",
        asymmetric: bool = False,
    ) -> "Series":
        """Expands an array.

        Args:
            array: finite values of any shape; what is not float32 is converted to it first.
            bits: bits of a term, 2 to 8.
            terms: number of terms; `bits * terms` is at most 32.
            axis: axis of the channels, each with scales of its own; `None` for one scale a term.
            clip: `None`, "laplace" or "mse": what lies beyond the clip goes into `saturation`.
            rounding: "nearest", or "sum": the errors of a channel cancel, each being at most a whole step.
            asymmetric: expand around the middle of the range, `bias`, instead of zero.

        Raises:
            InputError: for values that are not finite and an axis that is not there; PrecisionError.
        """
        values = np.ascontiguousarray(array, dtype=np.float32).reshape(np.shape(array))
        if axis is not None:
            if not -values.ndim <= axis < values.ndim:
                raise InputError(f"axis {axis} of an array of {values.ndim} dimensions")
            axis %= values.ndim
        if not (isinstance(bits, int) and isinstance(terms, int) and 0 <= bits < 2**32 and 0 <= terms < 2**32):
            raise InputError("bits and terms are positive integers")
        made = _fpxint.Expansion(values, (bits, terms), axis, clip or "none", rounding, asymmetric)
        return cls(made, values.shape, axis)

    @property
    def bits(self) -> int:
        """Bits of a term."""
        return self._bits

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self._shape

    @property
    def terms(self) -> "list[NDArray[np.int8]]":
        """The terms, coarsest first: int8 of the array's shape each, values in `[-2**(bits-1), 2**(bits-1) - 1]`."""
        return [self._expansion.term(term) for term in range(1, self._order + 1)]

    @property
    def scales(self) -> "NDArray[np.float32]":
        """Scales of the terms: float32 of shape (terms,), or (terms, channels) with an axis."""
        rows = [self._expansion.term_scales(term) for term in range(1, self._order + 1)]
        scales = np.array(rows, dtype=np.float32)
        return scales if self._axis is not None else scales[:, 0]

    @property
    def bias(self) -> "NDArray[np.float32]":
        """What stands beside the terms: float32 of shape (), or (channels,) with an axis; zeros unless asymmetric."""
        bias = np.array(self._expansion.bias(), dtype=np.float32)
        return bias if self._axis is not None else bias.reshape(())

    @property
    def saturation(self) -> Saturation:
        """The sparse integer part of a clipped array; empty otherwise."""
        return Saturation(*self._expansion.saturation())

    def reconstruct(self, n: Optional[int] = None) -> "NDArray[np.float64]":
        """The values that the first `n` terms stand for, all by default: float64 of the array's shape.

        Bias and saturation part belong to every prefix, and so does the mean of the terms left out, channel by channel.
        """
        return self._expansion.reconstruct(self._order if n is None else n)

    def bound(self, n: Optional[int] = None) -> float:
        """Largest possible `|x - reconstruct(n)|` anywhere in the array."""
        return float(np.max(self.bounds(n)))

    def bounds(self, n: Optional[int] = None) -> "NDArray[np.float64]":
        """Largest possible `|x - reconstruct(n)|`: float64 of shape (1,), or (channels,) with an axis."""
        return self._expansion.bounds(self._order if n is None else n)

    def __len__(self) -> int:
        """Number of terms."""
        return self._order

    def __repr__(self) -> str:
        return f"<fpxint.Series: int{self._bits}x{self._order} of shape {self._shape}, bound {self.bound():.3e}>"

"""Plots how fast a series converges: the largest error of every prefix, and the bound that holds for it.

    python convergence.py PLOT.png [ARRAY.npy]

Without an array it takes weights as a layer has them, normal with a few outliers.
"""

from __future__ import annotations

import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

import fpxint


def weights() -> NDArray[np.float32]:
    """Normal values of 64 channels, one in a thousand of them ten times as large."""
    generator = np.random.default_rng(0)
    values = generator.normal(0.0, 0.05, (64, 576))
    values[generator.random(values.shape) < 1e-3] *= 10
    return values.astype(np.float32)


def main(plot: str, array: str | None) -> None:
    """Expands the array at three numbers of bits, and plots."""
    x = np.load(array).astype(np.float32) if array is not None else weights()
    figure, axes = plt.subplots(figsize=(6, 4))
    for bits in (2, 4, 8):
        series = fpxint.Series.expand(x, bits, min(6, 24 // bits), axis=0)
        terms = range(1, len(series) + 1)
        errors = [float(np.abs(x - series.reconstruct(n)).max()) for n in terms]
        bounds = [series.bound(n) for n in terms]
        assert all(error <= bound for error, bound in zip(errors, bounds))
        (line,) = axes.semilogy([bits * n for n in terms], errors, "o-", label=f"INT{bits} terms")
        axes.semilogy([bits * n for n in terms], bounds, ":", color=line.get_color())
        print(f"INT{bits}: " + "  ".join(f"{n} terms {error:.2e}" for n, error in zip(terms, errors)))
    axes.set(xlabel="bits in all", ylabel="largest error (dotted: its bound)")
    axes.legend()
    figure.savefig(plot, bbox_inches="tight")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)

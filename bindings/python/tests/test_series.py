"""Series of arrays: the sum of the terms, and bounds that hold."""

import numpy as np
import pytest

import fpxint

RNG = np.random.default_rng(0)


def arrays():
    yield RNG.normal(0, 1, (6, 40)).astype(np.float32), None
    yield RNG.normal(0, 1, (6, 40)).astype(np.float32), 0
    yield RNG.normal(5, 1, (4, 3, 7)).astype(np.float32), -1
    yield RNG.standard_t(2, (3, 500)).astype(np.float32), 0
    yield np.array(0.3, dtype=np.float32), None
    yield np.zeros((2, 3), dtype=np.float32), 1
    yield np.array([1e30, -1e-30, 0, 3], dtype=np.float32), None


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("bits, terms", [(2, 4), (4, 1), (4, 2), (4, 3), (8, 1), (8, 3), (3, 5)])
def test_every_prefix_is_within_its_bound(bits, terms, asymmetric):
    for x, axis in arrays():
        for clip in (None, "laplace", "mse"):
            for rounding in ("nearest", "sum"):
                series = fpxint.Series.expand(x, bits, terms, axis, clip, rounding, asymmetric)
                for n in range(1, terms + 1):
                    error = np.abs(series.reconstruct(n) - x.astype(np.float64))
                    bounds = series.bounds(n)
                    assert error.max() <= series.bound(n) == bounds.max()
                    if axis is not None:
                        others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
                        assert (error.max(axis=others) <= bounds).all()


@pytest.mark.parametrize("asymmetric", [False, True])
def test_the_terms_add_up_to_what_is_reconstructed(asymmetric):
    for x, axis in arrays():
        series = fpxint.Series.expand(x, 4, 3, axis, clip="mse", asymmetric=asymmetric)

        def spread(values):
            if axis is None:
                return values
            shape = [1] * x.ndim
            shape[axis] = -1
            return values.reshape(shape)

        scales = series.scales.astype(np.float64)
        assert series.scales.dtype == series.bias.dtype == np.float32
        total = np.zeros(x.shape) + spread(series.bias.astype(np.float64))
        overflow = np.zeros(x.size)
        overflow[series.saturation.indices] = series.saturation.values
        total += spread(scales[0]) * overflow.reshape(x.shape)
        for scale, term in zip(scales, series.terms):
            assert term.dtype == np.int8 and term.shape == x.shape
            assert term.min() >= -8 and term.max() <= 7
            total += spread(scale) * term
        assert np.allclose(total, series.reconstruct(), rtol=1e-15, atol=0)
        assert len(series) == 3 and series.shape == x.shape
        for before, after in zip(scales, scales[1:]):
            assert (before == 16 * after).all()


def test_a_clip_leaves_a_saturation_part():
    x = RNG.standard_t(2, (8, 500)).astype(np.float32)
    series = fpxint.Series.expand(x, 4, 1, 0, clip="mse")
    plain = fpxint.Series.expand(x, 4, 1, 0)
    assert 0 < len(series.saturation.indices) <= x.size // 100
    assert series.saturation.values.dtype == np.int32 and (series.saturation.values != 0).all()
    assert series.bounds().sum() < plain.bounds().sum() and len(plain.saturation.indices) == 0
    error = lambda s: np.square(s.reconstruct() - x).sum()
    assert error(series) < error(plain)


def test_a_bias_halves_the_range():
    x = RNG.uniform(9, 11, (3, 100)).astype(np.float32)
    plain, centred = (fpxint.Series.expand(x, 4, 2, 0, asymmetric=a) for a in (False, True))
    assert centred.bound() < plain.bound() / 8
    assert np.abs(centred.bias - 10).max() < 0.2 and (plain.bias == 0).all() and plain.bias.shape == (3,)


def test_what_is_wrong_is_told():
    x = np.ones((2, 3), dtype=np.float32)
    for error, words, arguments in [
        (fpxint.PrecisionError, "2 to 8 bits", (x, 9, 1)),
        (fpxint.PrecisionError, "at most 32", (x, 8, 5)),
        (fpxint.PrecisionError, "at least one term", (x, 4, 0)),
        (fpxint.InputError, "axis 2", (x, 4, 1, 2)),
        (fpxint.InputError, "axis -3", (x, 4, 1, -3)),
        (fpxint.InputError, "clip", (x, 4, 1, 0, "some")),
        (fpxint.InputError, "rounding", (x, 4, 1, 0, None, "up")),
        (fpxint.InputError, "inf at element 1", (np.array([1, np.inf]), 4, 1)),
        (fpxint.InputError, "NaN at element 0", (np.array([np.nan]), 4, 1, None, None, "nearest", True)),
        (fpxint.InputError, "do not fit", (np.ones((0, 2)), 4, 1)),
        (fpxint.InputError, "positive", (x, -1, 1)),
    ]:
        with pytest.raises(error, match=words):
            fpxint.Series.expand(*arguments)
    series = fpxint.Series.expand(x, 4, 2)
    for n in (0, 3):
        with pytest.raises(fpxint.PrecisionError, match="the series has 2"):
            series.reconstruct(n)
    assert "int4x2" in repr(series)

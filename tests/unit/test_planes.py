"""What is computed around cells, and of them all, is what its plain definition says, to the last bit."""

import numpy as np
import numpy.typing as npt
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from captions.fingerprint.planes import grown, mean_around, quantile, smoothed, value_range

SHAPES = [(40, 40), (9, 31), (5, 1), (1, 7)]


def plane(shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return (np.random.default_rng(7).normal(size=shape) * 90).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [1, 2, 3])
def test_extremes_are_those_of_the_window_within_the_picture(shape: tuple[int, int], radius: int) -> None:
    cells = plane(shape)
    windows = sliding_window_view(np.pad(cells, radius, mode="edge"), (2 * radius + 1,) * 2)
    assert (grown(cells, np.maximum, radius) == windows.max(axis=(2, 3))).all()
    assert (value_range(cells, radius) == windows.max(axis=(2, 3)) - windows.min(axis=(2, 3))).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 5, 7])
def test_a_mean_is_that_of_the_window_with_nothing_outside_the_picture(shape: tuple[int, int], size: int) -> None:
    for cells in (np.rint(plane(shape)), np.rint(plane(shape)) ** 2):  # whole numbers add up without rounding
        windows = sliding_window_view(np.pad(cells.astype(np.float64), size // 2), (size, size))
        assert (mean_around(cells, size) == (windows.sum(axis=(2, 3)) / size**2).astype(np.float32)).all()
    assert (mean_around(plane(shape) ** 2, size) >= 0).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_smoothing_weighs_neighbours_one_two_one(shape: tuple[int, int]) -> None:
    weights = np.outer((1, 2, 1), (1, 2, 1)) / 16
    cells = np.rint(plane(shape))
    windows = sliding_window_view(np.pad(cells, 1, mode="edge"), (3, 3))
    assert (smoothed(cells) == (windows * weights).sum(axis=(2, 3))).all()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 2, 1_000, 1_437])
def test_a_quantile_is_numpys(count: int, kind: type[np.floating]) -> None:
    values = plane((1, count)).astype(kind)
    for share in (0.0, 0.5, 0.9, 0.95, 0.97, 1 - 0.02 * 0.3333, 0.99, 1.0):
        value = quantile(values, share)
        assert (value, value.dtype) == (np.quantile(values, share), kind)

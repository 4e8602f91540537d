"""Colours of disparities and errors, and the bar that explains them."""

import numpy as np
import pytest

from stereo.data.io import colors

GREY = [128] * 3


def test_far_is_blue_near_is_red_and_unknown_is_grey():
    row = np.array([[1.0, 15.0, np.nan, 7.0]])
    shown = colors.colorize(row, 16, np.array([[True, True, True, False]]))
    (far, near, *unknown) = shown[0].tolist()
    assert far[2] > far[0] and near[0] > near[2]
    assert unknown == [GREY, GREY]
    moved = colors.colorize(row - 10, 6, np.array([[True, True, True, False]]), low=-10)
    assert np.array_equal(moved, shown)


def test_a_few_wild_pixels_leave_the_scale_as_it_is():
    disparity = np.full((40, 50), 30.0)
    disparity[0, :5] = 900, -900, np.nan, np.inf, -np.inf
    assert colors.disparity_scale(disparity) == (0, 32)
    assert colors.disparity_scale(disparity - 50) == (-24, 4)


@pytest.mark.parametrize("depth", [None, lambda disparity: 100 / (disparity + 1)])
def test_the_bar_has_the_colours_of_its_numbers_from_left_to_right(depth):
    picture = colors.disparity_picture(np.full((20, 300), np.nan), 64, depth=depth)
    assert (picture[:20] == GREY).all()
    coloured = np.ptp(picture.astype(int), axis=2) > 20
    row = coloured.sum(axis=1).argmax()
    bar = picture[row][coloured[row]]
    ramp = colors.colorize(np.linspace(0, 64, len(bar))[None], 64)[0]
    assert len(bar) > 200
    assert np.abs(bar.astype(int) - ramp).mean() < 2


def test_errors_of_either_sign_have_one_colour():
    truth, valid = np.full((1, 200), 20.0), np.ones((1, 200), bool)
    valid[:, 0], truth[:, 0] = False, np.inf
    error = np.zeros((1, 200))
    error[:, 1:5] = 4, -4, 8, -30
    shown = colors.error_picture(np.full((1, 200), 20.0) + error, truth, valid)[0]
    assert shown[0].tolist() == GREY
    assert shown[1].tolist() == shown[2].tolist() != shown[5].tolist()
    assert shown[3].tolist() == shown[4].tolist() != shown[1].tolist()  # of 8 px and more

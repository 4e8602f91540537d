"""Sizes that are refused before anything is decoded."""

import pytest

from stereo.errors import InputError, UsageError
from stereo.system import limits


def test_images_of_100_megapixels_pass_and_larger_ones_name_the_option(monkeypatch):
    limits.check_pixels(11648, 8736, "picture")  # the largest cameras of today: 102 megapixels
    with pytest.raises(InputError, match="--max-megapixels"):
        limits.check_pixels(13300, 13300, "picture")
    monkeypatch.setenv(limits.MAX_MEGAPIXELS_VARIABLE, "200")
    limits.check_pixels(13300, 13300, "picture")


@pytest.mark.parametrize("size", [(0, 4278190101), (4, 0), (-1, 5), (2, 65_536)])
def test_impossible_image_sizes_are_refused(size):
    with pytest.raises(InputError):
        limits.check_pixels(*size, "picture")


@pytest.mark.parametrize("text", ["", "nan", "-1", "inf", "many"])
def test_a_limit_that_is_not_a_number_is_a_usage_error(monkeypatch, text):
    monkeypatch.setenv(limits.MAX_MEGAPIXELS_VARIABLE, text)
    with pytest.raises(UsageError, match="number above 0"):
        limits.max_pixels()


def test_a_limit_lasts_as_long_as_its_block(monkeypatch):
    monkeypatch.setenv(limits.MAX_MEGAPIXELS_VARIABLE, "3")
    with limits.picture_limit(123.456789):
        assert limits.max_pixels() == 123_456_789
    assert limits.max_pixels() == 3_000_000

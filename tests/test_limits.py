"""What is refused before it is decoded."""

import pytest

from stereo import limits
from stereo.errors import InputError, UsageError


def test_pictures_of_a_hundred_megapixels_pass_and_larger_ones_name_the_option(monkeypatch):
    limits.check_pixels(11648, 8736, "picture")  # the largest cameras of today: 102 megapixels
    with pytest.raises(InputError, match="--max-megapixels"):
        limits.check_pixels(13300, 13300, "picture")
    monkeypatch.setenv(limits.MAX_MEGAPIXELS_VARIABLE, "200")
    limits.check_pixels(13300, 13300, "picture")


@pytest.mark.parametrize("size", [(0, 4278190101), (4, 0), (-1, 5), (2, 65_536)])
def test_sizes_that_no_picture_has_are_refused(size):
    with pytest.raises(InputError):
        limits.check_pixels(*size, "picture")


@pytest.mark.parametrize("text", ["", "nan", "-1", "inf", "many"])
def test_a_limit_that_is_no_number_is_a_wrong_call(monkeypatch, text):
    monkeypatch.setenv(limits.MAX_MEGAPIXELS_VARIABLE, text)
    with pytest.raises(UsageError, match="positive number"):
        limits.max_pixels()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, b"\xff", "1" * 9999]
)
def test_json_that_is_too_deep_or_none_is_an_input_error(text):
    with pytest.raises(InputError, match="JSON"):
        limits.parse_json(text, "file")


def test_json_of_usual_depth_is_read():
    assert limits.parse_json('{"a": [1, {"b": null}]}', "file") == {"a": [1, {"b": None}]}

"""Path patterns: what they find, and by which fields."""

import os

import pytest

from stereo.data.sets.patterns import PathPattern
from stereo.errors import InputError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_fields_are_the_keys_and_the_first_choice_wins(tmp_path):
    touch(
        tmp_path, "a/left/1.png", "a/left/1.webp", "b/left/2.webp", "b/left/3.txt", "b/right/2.png"
    )
    found = PathPattern("<scene>/left/<frame>.{png,webp}").find(tmp_path)
    assert {key: paths[0].name for key, paths in found.items()} == {
        ("a", "1"): "1.png",
        ("b", "2"): "2.webp",
    }


def test_a_part_of_a_name_can_be_a_field_and_a_folder_a_choice(tmp_path):
    touch(tmp_path, "train/Piano-perfect/im0.png", "Sword-perfect/im0.png", "Sword/im0.png")
    found = PathPattern("{,train/}<scene>-perfect/im0.png").find(tmp_path)
    assert set(found) == {("Piano",), ("Sword",)}


@pytest.mark.parametrize("name", ["a+b", "x [1]", "{p,q}", "<t>", "sp ace", "(", "né"])
def test_names_with_odd_characters_are_names(tmp_path, name):
    root = tmp_path / "*[root]"
    touch(root, f"{name}/left/1.png")
    pattern = PathPattern("<scene>/left/<frame>.png")
    assert list(pattern.find(root)) == [(name, "1")]
    assert pattern.fill(root, {"scene": name, "frame": "1"}) == root / name / "left/1.png"


def test_given_values_narrow_the_search(tmp_path):
    touch(tmp_path, "frames_cleanpass/1.png", "frames_finalpass/2.png")
    pattern = PathPattern("frames_<pass>pass/<frame>.png")
    assert list(pattern.with_values({"pass": "clean"}).find(tmp_path)) == [("1",)]
    assert list(pattern.with_values({"pass": "none"}).find(tmp_path)) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    touch(tmp_path, "closed/1.png")
    (tmp_path / "closed").chmod(0)
    try:
        with pytest.raises(InputError, match="closed"):
            PathPattern("closed/<frame>.png").find(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)

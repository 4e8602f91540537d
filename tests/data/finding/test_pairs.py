import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stereo.data.finding.pairs import find_pairs, find_pictures, unique_names, would_find
from stereo.errors import InputError


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Create empty files below a fresh working folder."""
    monkeypatch.chdir(tmp_path)

    def create(*names):
        for name in names:
            path = Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    return create


def rows(pairs):
    return [(pair.name, pair.left.as_posix(), pair.right.as_posix()) for pair in pairs]


def refusal(*arguments):
    with pytest.raises(InputError) as caught:
        find_pairs(*arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_two_files_are_a_pair_whatever_their_names(files):
    files("a.png", "other/b.jpg")
    assert rows(find_pairs("a.png", "other/b.jpg")) == [("a", "a.png", "other/b.jpg")]


def test_folders_match_by_name_in_sorted_order(files):
    files("L/2.png", "L/10.png", "L/1.png", "R/1.png", "R/10.png", "R/2.png")
    assert rows(find_pairs("L", "R")) == [
        ("1", "L/1.png", "R/1.png"),
        ("10", "L/10.png", "R/10.png"),
        ("2", "L/2.png", "R/2.png"),
    ]


def test_folders_match_although_the_suffixes_differ(files):
    files("L/1.png", "R/1.jpg")
    assert rows(find_pairs("L", "R")) == [("1", "L/1.png", "R/1.jpg")]


@pytest.mark.parametrize("slash", ["", "/"])
def test_nested_folders_match_by_their_path_below(files, slash):
    files("L/x/1.png", "L/y/1.png", "L/y/z/2.png", "R/x/1.png", "R/y/1.png", "R/y/z/2.png")
    assert rows(find_pairs(f"L{slash}", f"R{slash}")) == [
        ("x_1", "L/x/1.png", "R/x/1.png"),
        ("y_1", "L/y/1.png", "R/y/1.png"),
        ("2", "L/y/z/2.png", "R/y/z/2.png"),
    ]


def test_folders_named_left_and_right_inside_one_tree_match(files):
    files("set/a/left/1.png", "set/b/left/1.png", "set/a/right/1.png", "set/b/right/1.png")
    found = find_pairs("set/*/left/1.png", "set/*/right/1.png")
    assert rows(found) == [
        ("a_left_1", "set/a/left/1.png", "set/a/right/1.png"),
        ("b_left_1", "set/b/left/1.png", "set/b/right/1.png"),
    ]


def test_hidden_files_and_other_files_of_a_folder_are_skipped(files):
    files("L/1.png", "L/notes.txt", "L/.1.png", "L/Thumbs.db", "R/1.png", "R/.DS_Store")
    files("L/.ipynb_checkpoints/1.png", "R/.thumbnails/small/1.png")
    assert rows(find_pairs("L", "R")) == [("1", "L/1.png", "R/1.png")]


def test_upper_case_suffixes_are_images(files):
    files("L/1.PNG", "R/1.JPG")
    assert rows(find_pairs("L", "R")) == [("1", "L/1.PNG", "R/1.JPG")]


def test_middlebury_globs_match_by_scene(files):
    scenes = ("Adirondack", "Jadeplant", "Piano")
    files(*(f"scenes/{scene}/im{view}.png" for scene in scenes for view in (0, 1)))
    assert rows(find_pairs("scenes/*/im0.png", "scenes/*/im1.png")) == [
        (f"{scene}_im0", f"scenes/{scene}/im0.png", f"scenes/{scene}/im1.png") for scene in scenes
    ]


@pytest.mark.parametrize("prefix", ["", "./", "absolute"])
def test_globs_may_be_relative_or_absolute(files, tmp_path, prefix):
    files("s/a/im0.png", "s/a/im1.png", "s/b/im0.png", "s/b/im1.png")
    prefix = f"{tmp_path}/" if prefix == "absolute" else prefix
    found = find_pairs(f"{prefix}s/*/im0.png", f"{prefix}s/*/im1.png")
    assert [pair.right.parent.name for pair in found] == ["a", "b"]


def test_double_star_globs_match_at_any_depth(files):
    folders = ("set/a", "set/a/deep/er", "set/b")
    files(*(f"{folder}/im{view}.png" for folder in folders for view in (0, 1)))
    found = find_pairs("set/**/im0.png", "set/**/im1.png")
    assert sorted((p.left.as_posix(), p.right.as_posix()) for p in found) == sorted(
        (f"{folder}/im0.png", f"{folder}/im1.png") for folder in folders
    )


def test_double_star_globs_match_files_at_their_root_too(files):
    folders = ("set", "set/a")
    files(*(f"{folder}/im{view}.png" for folder in folders for view in (0, 1)))
    found = find_pairs("set/**/im0.png", "set/**/im1.png")
    assert sorted((p.left.as_posix(), p.right.as_posix()) for p in found) == sorted(
        (f"{folder}/im0.png", f"{folder}/im1.png") for folder in folders
    )


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("both/left[12].png", "both/right[12].png", ["1", "2"]),
        ("both/left[!3].png", "both/right[!3].png", ["1", "2"]),
        ("both/left[1-2].png", "both/right[1-2].png", ["1", "2"]),
        ("both/left?.png", "both/right?.png", ["1", "2", "3"]),
        ("both/l*[0-9].png", "both/r*[0-9].png", ["1", "2", "3"]),
    ],
)
def test_sets_and_question_marks_match(files, left, right, expected):
    files(*(f"both/{view}{i}.png" for view in ("left", "right") for i in (1, 2, 3)))
    found = find_pairs(left, right)
    assert [(p.left.name, p.right.name) for p in found] == [
        (f"left{i}.png", f"right{i}.png") for i in expected
    ]


def test_a_glob_with_other_wildcard_order_matches_by_what_the_stars_stand_for(files):
    files("a/cam0/f1.png", "a/cam1/f1.png", "b/cam0/f1.png", "b/cam1/f1.png")
    found = find_pairs("*/cam0/*.png", "*/cam1/*.png")
    assert [(p.left.parts[0], p.right.parts[0]) for p in found] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize(
    ("left_name", "right_name"),
    [
        ("left{}", "right{}"),
        ("{}_left", "{}_right"),
        ("Left_{}", "Right_{}"),
        ("{}_L", "{}_R"),
        ("{}-l", "{}-r"),
        ("scene{}_view1", "scene{}_view5"),
    ],
)
def test_names_with_their_side_match_in_two_folders(files, left_name, right_name):
    numbers = ("01", "02", "14")
    files(*(f"L/{left_name.format(n)}.png" for n in numbers))
    files(*(f"R/{right_name.format(n)}.png" for n in numbers))
    assert [(p.left.stem, p.right.stem) for p in find_pairs("L", "R")] == [
        (left_name.format(n), right_name.format(n)) for n in numbers
    ]


def test_names_with_their_side_match_in_one_folder_by_globs(files):
    files(*(f"both/{view}{n}.jpg" for view in ("left", "right") for n in ("01", "02")))
    assert rows(find_pairs("both/left*.jpg", "both/right*.jpg")) == [
        ("left01", "both/left01.jpg", "both/right01.jpg"),
        ("left02", "both/left02.jpg", "both/right02.jpg"),
    ]


def test_words_that_only_contain_left_or_right_stay_apart(files):
    names = ("bright1", "cleft1", "upright1")
    files(*(f"{view}/{name}.png" for view in "LR" for name in names))
    assert [(p.left.stem, p.right.stem) for p in find_pairs("L", "R")] == [(n, n) for n in names]


def test_a_glob_against_a_folder_matches_by_name(files):
    files("L/1.png", "L/2.png", "R/1.png", "R/2.png")
    assert [p.right.name for p in find_pairs("L/*.png", "R")] == ["1.png", "2.png"]


def test_a_path_with_brackets_is_a_path_when_it_exists(files):
    files("[old]/1.png", "R/1.png")
    assert rows(find_pairs("[old]", "R")) == [("1", "[old]/1.png", "R/1.png")]
    assert rows(find_pairs("[old]/1.png", "R/1.png")) == [("1", "[old]/1.png", "R/1.png")]


@pytest.mark.parametrize("as_globs", [False, True], ids=["folders", "globs"])
def test_the_first_left_file_without_a_partner_is_named(files, as_globs):
    files("L/1.png", "L/2.png", "L/3.png", "R/1.png")
    message = refusal(*(("L/*.png", "R/*.png") if as_globs else ("L", "R")))
    assert "L/2.png" in message
    assert "right" in message
    assert "L/3.png" not in message


@pytest.mark.parametrize("as_globs", [False, True], ids=["folders", "globs"])
def test_the_first_right_file_without_a_partner_is_named(files, as_globs):
    files("L/1.png", "R/1.png", "R/2.png", "R/3.png")
    message = refusal(*(("L/*.png", "R/*.png") if as_globs else ("L", "R")))
    assert "R/2.png" in message
    assert "left" in message
    assert "R/3.png" not in message


def test_a_left_file_without_a_partner_is_named_among_side_names(files):
    files("L/left01.png", "L/left02.png", "R/right01.png")
    assert "L/left02.png" in refusal("L", "R")


@pytest.mark.parametrize(("left", "right"), [("L", "R/1.png"), ("L/1.png", "R")])
def test_a_folder_against_a_file_is_refused(files, left, right):
    files("L/1.png", "R/1.png")
    message = refusal(left, right)
    assert "folder" in message
    assert "file" in message


@pytest.mark.parametrize(("left", "right"), [("L", "R/*.png"), ("L/*.png", "R")])
def test_an_empty_folder_or_glob_is_refused_by_name(files, left, right):
    for folder in ("L", "R"):
        Path(folder).mkdir()
    files("notes/1.txt")
    assert "L" in refusal(left, right)


@pytest.mark.parametrize(("left", "right"), [("nowhere", "R"), ("R", "nowhere")])
def test_a_missing_folder_is_reported_as_missing(files, left, right):
    files("R/1.png")
    message = refusal(left, right)
    assert "nowhere" in message
    assert "no such" in message
    assert "is a file" not in message


def test_several_files_of_one_key_are_refused(files):
    files("L/1.png", "L/1.jpg", "R/1.png", "R/1.jpg")
    assert "share a name" in refusal("L", "R")


def test_ground_truth_folder_matches_the_left_files(files):
    files("L/1.png", "L/2.png", "R/1.png", "R/2.png", "D/1.pfm", "D/2.pfm", "D/9.pfm")
    found = find_pairs("L", "R", "D")
    assert [p.truth.as_posix() for p in found] == ["D/1.pfm", "D/2.pfm"]


def test_ground_truth_glob_matches_by_scene(files):
    for scene in "ab":
        files(*(f"s/{scene}/{name}" for name in ("im0.png", "im1.png", "disp0.pfm", "disp1.pfm")))
    found = find_pairs("s/*/im0.png", "s/*/im1.png", "s/*/disp0.pfm")
    assert [p.truth.as_posix() for p in found] == ["s/a/disp0.pfm", "s/b/disp0.pfm"]


def test_ground_truth_of_a_file_pair_is_any_file(files):
    files("l.png", "r.png", "d/t.npy")
    (pair,) = find_pairs("l.png", "r.png", "d/t.npy")
    assert pair.truth == Path("d/t.npy")


def test_a_left_file_without_ground_truth_is_named(files):
    files("L/1.png", "L/2.png", "R/1.png", "R/2.png", "D/1.pfm")
    message = refusal("L", "R", "D")
    assert "L/2.png" in message
    assert "ground truth" in message


def test_ground_truth_file_for_a_folder_is_refused(files):
    files("L/1.png", "R/1.png", "D/1.pfm")
    message = refusal("L", "R", "D/1.pfm")
    assert "folder" in message
    assert "file" in message


def test_a_name_is_the_stem_if_stems_differ():
    assert unique_names([Path("/a/1.png"), Path("/b/2.png")]) == ["1", "2"]


def test_a_name_is_lengthened_by_folders_until_names_differ():
    paths = [Path("/x/p/q/1.png"), Path("/y/p/q/1.png"), Path("/y/p/q/2.png")]
    assert unique_names(paths) == ["x_p_q_1", "y_p_q_1", "2"]


def test_names_that_differ_by_case_alone_are_numbered_without_the_folders_above():
    paths = [Path("/a/b/L/1.png"), Path("/a/b/L/X.png"), Path("/a/b/L/x.png"), Path("/a/b/R/x.png")]
    assert unique_names(paths) == ["1", "L_X", "L_X_2", "R_x"]


@pytest.mark.parametrize(
    ("argument", "path", "found"),
    [
        ("in", "in/maps/1_color.png", True),
        ("in", "in/../out/1_color.png", False),
        ("in", "in/1_disparity.pfm", False),
        ("in/*_l.png", "in/1_l_color.png", False),
        ("in/l_*.png", "in/l_1_color.png", True),
        ("in/**/*.png", "in/maps/deep/1.png", True),
        ("in/1.png", "in/1_color.png", False),
    ],
)
def test_outputs_that_the_next_run_would_read_are_known(
    tmp_path, monkeypatch, argument, path, found
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.png").touch()
    for each in (argument, str(tmp_path / argument)):
        for whole in (Path(path), tmp_path / path):
            expected = whole.name if found else None
            assert would_find(each, whole.parent, ["a.pfm", whole.name]) == expected


def test_a_bracket_in_a_name_is_explained(tmp_path):
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]/l.png").touch()
    with pytest.raises(InputError, match=r"write \[\[\] for a \[ that is part of a name"):
        find_pictures(str(tmp_path / "run[1]/*.png"))
    assert find_pictures(str(tmp_path / "run[[]1]/*.png"))


def test_same_stems_with_other_suffixes_get_different_names(files):
    files("L/1.png", "L/1.jpg")
    names = unique_names([Path("L/1.png"), Path("L/1.jpg")])
    assert len(set(names)) == 2
    assert all("1" in name for name in names)


def test_same_stems_with_other_suffixes_omit_folders_that_do_not_distinguish_them(files, tmp_path):
    names = unique_names([tmp_path / "L/1.png", tmp_path / "L/1.jpg"])
    assert not any(tmp_path.name in name for name in names)


def test_names_that_differ_only_by_case_are_distinguished():
    names = unique_names([Path("/a/View.png"), Path("/b/view.png")])
    assert names == ["a_View", "b_view"]


@pytest.mark.parametrize(
    "paths",
    [
        ["/a/b_c/x.png", "/a/b/c_x.png", "/a_b/c/x.png"],
        ["/a/x.png", "/b/x.png", "/b_x.png"],
        ["/a/x.png", "/b/x.png", "/c/a_x.png", "/d/a_x.png"],
        ["/a/x.png", "/a/x.jpg", "/a/x_png.bmp", "/x_png.png"],
        ["/a/X.png", "/a/x.png", "/A/x.png"],
        ["/x.png", "/x.jpg", "/x_png.png", "/x_png_0.png", "/X.PNG"],
    ],
    ids=lambda paths: " ".join(paths),
)
def test_names_never_clash_in_awkward_sets(paths):
    names = unique_names([Path(path) for path in paths])
    assert len({name.casefold() for name in names}) == len(paths)
    assert not any(os.sep in name for name in names)


PARTS = st.sampled_from(["a", "A", "b", "a_b", "x", "x_png", "x_png_0", "png", "0"])
PATHS = st.builds(
    lambda folders, stem, suffix: "/" + "/".join([*folders, f"{stem}{suffix}"]),
    st.lists(PARTS, max_size=3),
    PARTS,
    st.sampled_from([".png", ".jpg", ".PNG"]),
)


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True))
@settings(max_examples=400, deadline=None)
def test_names_never_clash(paths):
    names = unique_names([Path(path) for path in paths])
    assert len({name.casefold() for name in names}) == len(paths)


def test_wildcards_in_suffixes_match_files_of_any_format(tmp_path):
    for scene, suffix in (("a", "png"), ("b", "jpg")):
        (tmp_path / scene).mkdir()
        for name in (f"left.{suffix}", f"right.{suffix}", "gt.pfm"):
            (tmp_path / scene / name).touch()
    globs = [str(tmp_path / "*" / f"{name}.*") for name in ("left", "right", "gt")]
    pairs = find_pairs(*globs)
    assert [pair.left.name for pair in pairs] == ["left.png", "left.jpg"]
    assert [pair.truth.parent.name for pair in pairs] == ["a", "b"]


def test_thousands_of_equal_stems_are_named_quickly():
    paths = [Path(f"/data/scene{i}/left/0006.png") for i in range(20_000)]
    assert len(set(unique_names(paths))) == 20_000


def test_views_without_a_common_name_show_what_their_names_are(files):
    files("L/000.png", "L/001.png", "R/rig1/000.png", "R/rig1/001.png")
    told = refusal("L/00*.png", "R/rig*/*.png")
    assert "no names in common (the first are '0' and '1/000')" in told
    assert "whose wildcards match the same" in told

"""Videos and packed pictures: frames by number, views cut apart, folders that can be resumed."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stereo.cli import run
from stereo.data.disparities import read_disparity
from stereo.data.videos import Video, split_views, write_video
from stereo.errors import InputError
from stereo.opencv import import_cv2

SIZE = (48, 96)
SHIFT = 8
COUNT = 4
CALL = ("--model", "sgbm", "--max-disparity", "16")


def scenes(count=COUNT, size=SIZE):
    """Return left and right views at one depth, smooth enough to survive a codec."""
    cv2 = import_cv2()
    rng = np.random.default_rng(0)
    height, width = size
    wide = []
    for _ in range(count):
        noise = rng.integers(0, 256, (height, width + SHIFT, 3), np.uint8)
        wide.append(cv2.GaussianBlur(noise, (0, 0), 1.5))
    wide = [cv2.normalize(w, None, 0, 255, cv2.NORM_MINMAX) for w in wide]
    return [(w[:, :-SHIFT], w[:, SHIFT:]) for w in wide]


def write(path, frames):
    cv2 = import_cv2()
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


@pytest.fixture
def films(tmp_path):
    views = scenes()
    return [write(tmp_path / f"{side}.avi", [v[i] for v in views]) for i, side in enumerate("lr")]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_frames_come_by_number_in_any_order(films):
    video = Video(films[0])
    assert video.count() == COUNT
    assert video.rate == 10
    frames = [video.read(i) for i in range(COUNT)]
    for i in (2, 0, 3, 3, 1):
        assert np.array_equal(video.read(i), frames[i])
    assert np.abs(frames[1].astype(int) - scenes()[1][0]).mean() < 12
    with pytest.raises(InputError, match="frame 4"):
        video.read(COUNT)


def test_two_videos_are_matched_frame_by_frame(films, tmp_path):
    out = tmp_path / "out"
    call = ["infer", *map(str, films), "--output", str(out), *CALL, "--formats", "pfm,video"]
    assert run(call) == 0
    assert names(out) == sorted(
        [f"l_{i:06d}_{end}" for i in range(COUNT) for end in ("color.png", "disparity.pfm")]
        + ["infer.json", "l_color.mp4"]
    )
    for i in range(COUNT):
        disparity = read_disparity(out / f"l_{i:06d}_disparity.pfm")
        assert abs(np.median(disparity) - SHIFT) < 0.5
    assert Video(out / "l_color.mp4").count() == COUNT


@pytest.mark.parametrize(("packing", "axis"), [("side-by-side", 1), ("top-bottom", 0)])
@pytest.mark.parametrize("kind", ["video", "numbered", "folder"])
def test_packed_views_are_cut_apart(tmp_path, packing, axis, kind):
    packed = [np.concatenate(views, axis) for views in scenes(2)]
    source = tmp_path / "packed"
    source.mkdir()
    if kind == "video":
        argument = write(source / "film.avi", packed)
    else:
        for i, frame in enumerate(packed):
            Image.fromarray(frame).save(source / f"shot_{i:03d}.png")
        argument = source if kind == "folder" else source / "shot_%03d.png"
    out = tmp_path / "out"
    call = ["infer", str(argument), "--packing", packing, "--output", str(out), *CALL]
    assert run(call) == 0
    maps = sorted(out.glob("*.pfm"))
    assert len(maps) == 2
    for path in maps:
        disparity = read_disparity(path)
        assert disparity.shape == SIZE
        assert abs(np.median(disparity) - SHIFT) < 0.5


def test_views_are_halves_of_the_picture():
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    left, right = split_views(picture, "side-by-side", "x")
    assert np.array_equal(np.concatenate([left, right], 1), picture)
    with pytest.raises(InputError, match="width 5 is odd"):
        split_views(picture[:, :5], "side-by-side", "x")


def test_a_run_is_resumed_where_it_stopped(films, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["infer", *map(str, films), "--output", str(out), *CALL, "--resume"]
    assert run(call) == 0
    (out / "l_000001_color.png").unlink()
    kept = out / "l_000000_disparity.pfm"
    before = kept.stat().st_mtime_ns
    capsys.readouterr()
    assert run(call) == 0
    assert f"1 of {COUNT} pairs written" in capsys.readouterr().out
    assert kept.stat().st_mtime_ns == before
    assert (out / "l_000001_color.png").is_file()
    assert run(call) == 0  # nothing left to do


@pytest.mark.parametrize("damage", ["other settings", "no settings", "broken settings"])
def test_maps_of_other_settings_are_not_taken_for_ours(films, tmp_path, capsys, damage):
    out = tmp_path / "out"
    call = ["infer", *map(str, films), "--output", str(out), *CALL[:2], "--resume"]
    assert run([*call, "--max-disparity", "16"]) == 0
    most = "16"
    if damage == "other settings":
        most = "32"
    elif damage == "no settings":
        (out / "infer.json").unlink()
    else:
        (out / "infer.json").write_text("{")
    capsys.readouterr()
    assert run([*call, "--max-disparity", most]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--resume" in error


def test_all_frames_share_one_scale_of_colours(films, tmp_path):
    out = tmp_path / "out"
    assert run(["infer", *map(str, films), "--output", str(out), *CALL]) == 0
    bars = [np.asarray(Image.open(out / f"l_{i:06d}_color.png"))[SIZE[0] :] for i in range(COUNT)]
    assert all(np.array_equal(bar, bars[0]) for bar in bars)


def short_film(tmp_path, films):
    return [str(films[0]), str(write(tmp_path / "short.avi", [v[1] for v in scenes(3)]))]


def cut_film(tmp_path, films):
    (tmp_path / "cut.avi").write_bytes(films[1].read_bytes()[:200])
    return [str(films[0]), str(tmp_path / "cut.avi")]


def no_film(tmp_path, films):
    shutil.copy(__file__, tmp_path / "text.mp4")
    return [str(tmp_path / "text.mp4"), "--packing", "top-bottom"]


def mixed(tmp_path, films):
    Image.fromarray(scenes(1)[0][0]).save(tmp_path / "a.png")
    return [str(films[0]), str(tmp_path / "a.png")]


def odd(tmp_path, films):
    Image.fromarray(scenes(1)[0][0][:, :-1]).save(tmp_path / "a.png")
    return [str(tmp_path / "a.png"), "--packing", "side-by-side"]


@pytest.mark.parametrize("given", [short_film, cut_film, no_film, mixed, odd])
def test_what_cannot_be_matched_is_one_line(films, tmp_path, capfd, given):
    call = ["infer", *given(tmp_path, films), "--output", str(tmp_path / "out"), *CALL]
    assert run(call) == 1
    error = capfd.readouterr().err
    assert error.count("stereo infer: error: ") == 1  # codecs may have lines of their own
    assert "Traceback" not in error
    assert not list((tmp_path / "out").glob("*.pfm"))


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--packing", "diagonal"],
        ["r.avi", "--packing", "top-bottom"],
        ["r.avi", "--ground-truth", "gt.pfm"],
        ["r.avi", "--ground-truth", "gt.pfm", "--resume"],
    ],
)
def test_arguments_that_exclude_each_other_are_refused(films, tmp_path, monkeypatch, capsys, more):
    monkeypatch.chdir(tmp_path)
    assert run(["infer", "l.avi", *more, "--output", "out", *CALL]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_video_is_no_format_of_pictures(tmp_path, capsys):
    left, right = scenes(1)[0]
    for name, view in (("l.png", left), ("r.png", right)):
        Image.fromarray(view).save(tmp_path / name)
    call = ["infer", str(tmp_path / "l.png"), str(tmp_path / "r.png"), *CALL]
    assert run([*call, "--output", str(tmp_path / "out"), "--formats", "video"]) == 2
    assert "video" in capsys.readouterr().err


def test_settings_are_noted_for_people_too(films, tmp_path):
    out = tmp_path / "out"
    assert run(["infer", *map(str, films), "--output", str(out), *CALL]) == 0
    noted = json.loads((out / "infer.json").read_text())
    assert noted["model"]["name"] == "sgbm"
    assert noted["pairs"] == COUNT


def test_a_film_has_the_size_of_its_pictures_but_for_an_odd_row(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (33, 21), "red").save(picture)
    write_video(tmp_path / "a.mp4", [picture, picture], 5.0)
    video = Video(tmp_path / "a.mp4")
    assert video.count() == 2
    assert video.read(0).shape == (20, 32, 3)

"""Videos, numbered and packed images: frames by number, views cut apart."""

import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import posix_only
from PIL import Image

from stereo.commands.cli import run
from stereo.data.finding.sequences import Numbered, is_numbered
from stereo.data.finding.sources import find_sources
from stereo.data.io.disparities import read_disparity
from stereo.data.io.videos import Video, is_video, split_views, write_video
from stereo.errors import InputError, OutputError
from stereo.system.opencv import import_cv2

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


def write(path, frames, rate=10):
    cv2 = import_cv2()
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (width, height))
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


def test_frames_are_read_by_number_in_any_order(films):
    video = Video(films[0])
    assert video.count() == COUNT
    assert video.rate == 10
    frames = [video.read(i) for i in range(COUNT)]
    for i in (2, 0, 3, 3, 1):
        assert np.array_equal(video.read(i), frames[i])
    assert np.abs(frames[1].astype(int) - scenes()[1][0]).mean() < 12
    with pytest.raises(InputError, match="frame 4"):
        video.read(COUNT)


def test_frames_in_order_take_one_pass_over_the_film(films, monkeypatch):
    passes, rewind = [], Video._rewind
    monkeypatch.setattr(Video, "_rewind", lambda video: passes.append(1) or rewind(video))
    video = Video(films[0])
    for index in range(COUNT):
        video.read(index)
    assert len(passes) == 1


@pytest.mark.parametrize("told", [0.0, -1.0, 90_000.0])
def test_a_film_that_does_not_say_its_rate_has_25_frames_a_second(films, told):
    video = Video(films[0])
    video._capture = SimpleNamespace(get=lambda _: told)
    assert video.rate == 25


def test_two_videos_are_matched_frame_by_frame(films, tmp_path):
    out = tmp_path / "out"
    call = ["infer", *map(str, films), "--output", str(out), *CALL, "--formats", "pfm,video"]
    assert run(call) == 0
    assert names(out) == sorted(
        [f"l_{i:06d}_{end}" for i in range(COUNT) for end in ("color.png", "disparity.pfm")]
        + ["infer.jsonl", "l_color.mp4"]
    )
    for i in range(COUNT):
        disparity = read_disparity(out / f"l_{i:06d}_disparity.pfm")
        assert abs(np.median(disparity) - SHIFT) < 0.5
    film = Video(out / "l_color.mp4")
    assert (film.count(), film.rate) == (COUNT, 10)  # as fast as what it is made of


@pytest.mark.parametrize(("packing", "axis"), [("side-by-side", 1), ("top-bottom", 0)])
@pytest.mark.parametrize("kind", ["video", "numbered", "folder"])
def test_packed_views_are_split(tmp_path, packing, axis, kind):
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


def test_all_frames_share_one_scale_of_colours(films, tmp_path):
    out = tmp_path / "out"
    assert run(["infer", *map(str, films), "--output", str(out), *CALL]) == 0
    bars = [np.asarray(Image.open(out / f"l_{i:06d}_color.png"))[SIZE[0] :] for i in range(COUNT)]
    assert all(np.array_equal(bar, bars[0]) for bar in bars)


def test_all_frames_share_one_scale_though_the_first_cannot_be_read(stereo, tmp_path):
    for number, views in enumerate(scenes(4)):
        for side, view in zip("lr", views, strict=True):
            shown = np.roll(view, -number * (side == "r"), axis=1)
            Image.fromarray(shown).save(tmp_path / f"{side}_{number}.png")
    (tmp_path / "l_0.png").write_bytes(b"damaged")
    out = tmp_path / "out"
    views = (tmp_path / "l_%d.png", tmp_path / "r_%d.png")
    assert stereo("infer", *views, "--output", out, *CALL).status == 1
    bars = [np.asarray(Image.open(out / f"l_{i}_color.png"))[SIZE[0] :] for i in (1, 2, 3)]
    assert all(np.array_equal(bar, bars[0]) for bar in bars)


def test_videos_of_other_rates_trigger_a_warning(tmp_path, films, stereo):
    fast = write(tmp_path / "fast.avi", [v[1] for v in scenes()], rate=20)
    result = stereo("infer", films[0], fast, "--output", tmp_path / "out", *CALL)
    assert any("10 frames a second" in line and "20:" in line for line in result.errors)
    result = stereo("infer", *films, "--output", tmp_path / "out", *CALL)
    assert not any("frames a second" in line for line in result.errors)


def test_an_address_is_not_resumed(stereo, tmp_path):
    call = ("infer", "http://localhost:9/l.mp4", "--packing", "top-bottom")
    result = stereo(*call, "--output", tmp_path / "out", "--resume")
    assert result.status == 2
    assert "--resume cannot tell whether http://localhost:9/l.mp4 has changed" in result.errors[-1]


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


def twice(tmp_path, films):
    return [str(films[0])] * 2


@pytest.mark.parametrize("given", [short_film, cut_film, no_film, mixed, odd, twice])
def test_unusable_videos_are_one_line(films, tmp_path, capfd, given):
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


def test_images_have_no_video_format(tmp_path, capsys):
    left, right = scenes(1)[0]
    for name, view in (("l.png", left), ("r.png", right)):
        Image.fromarray(view).save(tmp_path / name)
    call = ["infer", str(tmp_path / "l.png"), str(tmp_path / "r.png"), *CALL]
    assert run([*call, "--output", str(tmp_path / "out"), "--formats", "video"]) == 2
    assert "video" in capsys.readouterr().err


def test_a_video_has_the_size_of_its_images_except_for_an_odd_row(tmp_path):
    picture = tmp_path / "a.png"
    Image.new("RGB", (33, 21), "red").save(picture)
    write_video(tmp_path / "a.mp4", [picture, picture], 5.0, "a.mp4")
    video = Video(tmp_path / "a.mp4")
    assert video.count() == 2
    assert video.read(0).shape == (20, 32, 3)


def test_our_own_pictures_have_no_limit(tmp_path, monkeypatch):
    """A colour bar makes them larger than the frames."""
    monkeypatch.setattr("stereo.system.limits.max_pixels", lambda: 100)
    picture = tmp_path / "a.png"
    Image.new("RGB", (32, 20), "red").save(picture)
    monkeypatch.setattr("stereo.data.io.videos.check_pixels", lambda *_: None)  # of the MP4
    write_video(tmp_path / "a.mp4", [picture, picture], 5.0, "a.mp4")


def test_a_frame_of_another_size_is_named(tmp_path):
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture, size in zip(pictures, ((32, 20), (32, 24)), strict=True):
        Image.new("RGB", size, "red").save(picture)
    with pytest.raises(InputError, match=r"b\.png: is 32x24, the first frame 32x20"):
        write_video(tmp_path / "a.mp4", pictures, 5.0, "a.mp4")


@posix_only
def test_a_video_that_a_full_disk_cuts_short_is_an_error(tmp_path):
    import resource  # of POSIX

    pictures = []
    for number, (left, _) in enumerate(scenes(40)):
        pictures.append(tmp_path / f"{number}.png")
        Image.fromarray(left).save(pictures[-1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"^named\.mp4: .* of 40 frames"):
            write_video(tmp_path / "a.mp4", pictures, 5.0, "named.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_colours_of_a_video_are_those_of_its_images(tmp_path):
    Image.new("RGB", (32, 20), (200, 40, 90)).save(tmp_path / "ä.png")
    write_video(tmp_path / "a.mp4", [tmp_path / "ä.png"], 5.0, "a.mp4")
    colour = Video(tmp_path / "a.mp4").read(0).mean(axis=(0, 1))
    assert colour == pytest.approx([200, 40, 90], abs=6)


def two_framed(path):
    """Write an MPO of both views, which JPEG changes a little; return the path."""
    ((left, right),) = scenes(1)
    frames = [Image.fromarray(view) for view in (left, right)]
    frames[0].save(path, "MPO", save_all=True, append_images=frames[1:], quality=95)
    return path


@pytest.mark.parametrize("kind", ["file", "folder", "glob", "numbered"])
def test_the_two_frames_of_an_mpo_are_the_views(stereo, tmp_path, kind):
    (tmp_path / "in").mkdir()
    for number in range(1 if kind == "file" else 2):
        two_framed(tmp_path / "in" / f"scene_{number:03d}.{'jpg' if kind == 'numbered' else 'mpo'}")
    name = {"file": "scene_000.mpo", "folder": "", "glob": "*.mpo", "numbered": "scene_%03d.jpg"}
    result = infer(stereo, tmp_path, tmp_path / "in" / name[kind])
    assert (result.status, result.errors) == (0, [])
    (source, *others) = find_sources(str(tmp_path / "in" / name[kind]), None)
    assert len(others) == (kind != "file")
    sample = source.read()
    for view, expected in zip((sample.left, sample.right), scenes(1)[0], strict=True):
        assert np.abs(view.astype(int) - expected).mean() < 8
    assert (tmp_path / "out" / "scene_000_disparity.pfm").is_file()


def test_an_mpo_with_other_images_or_options_is_one_line(stereo, tmp_path):
    path = two_framed(tmp_path / "scene.mpo")
    twice = infer(stereo, tmp_path, path, path)
    assert (twice.status, len(twice.errors)) == (1, 1)
    assert "name it once" in twice.errors[0]
    packed = infer(stereo, tmp_path, path, "--packing", "side-by-side")
    assert packed.status == 1
    assert "leave out --packing" in packed.errors[0]
    truth = infer(stereo, tmp_path, path, "--ground-truth", tmp_path / "gt.pfm")
    assert (truth.status, len(truth.errors)) == (2, 1)
    Image.new("RGB", (48, 32)).save(tmp_path / "single.png")
    mixed = infer(stereo, tmp_path, tmp_path)
    assert (mixed.status, len(mixed.errors)) == (1, 1)
    assert "single.png" in mixed.errors[0]
    missing = infer(stereo, tmp_path, tmp_path / "single.png")
    assert (missing.status, len(missing.errors)) == (2, 1)
    assert "no right view" in missing.errors[0]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_other_multi_frame_files_are_refused_and_not_split(stereo, tmp_path, suffix):
    frames = [Image.fromarray(view) for view in scenes(1)[0]]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    result = infer(stereo, tmp_path, tmp_path / f"a.{suffix}", "--packing", "side-by-side")
    assert (result.status, len(result.errors)) == (1, 1)
    assert "several frames" in result.errors[0]


@pytest.mark.filterwarnings("ignore:the 16-bit")
@pytest.mark.parametrize("packing", [None, "side-by-side"])
def test_frames_of_a_series_share_the_depth_of_the_first(tmp_path, packing):
    brightest = (4000, 900, 30_000)  # the last needs more bits than the first
    for number, value in enumerate(brightest):
        for side in "lr":
            deep = np.full((8, 12), value, np.uint16)
            Image.fromarray(deep).save(tmp_path / f"{side}{number}.png")
    right = None if packing else str(tmp_path / "r%d.png")
    found = find_sources(str(tmp_path / "l%d.png"), right, packing=packing)
    values = [int(source.read().left[0, 0, 0]) for source in found]
    assert values == [4000 >> 4, 900 >> 4, 30_000 >> 8]


@pytest.fixture
def numbered(tmp_path):
    """Write numbered images; return the two patterns."""

    def make(*numbers):
        for number, (left, right) in zip(numbers, scenes(len(numbers)), strict=True):
            for side, view in (("left", left), ("right", right)):
                Image.fromarray(view).save(tmp_path / f"{side}_{number:06d}.png")
        return [str(tmp_path / f"{side}_%06d.png") for side in ("left", "right")]

    return make


def infer(stereo, tmp_path, *arguments, formats="pfm"):
    output = ("--output", tmp_path / "out", "--formats", formats)
    return stereo("infer", *arguments, *output, *CALL)


def test_numbered_images_keep_their_numbers(stereo, numbered, tmp_path):
    result = infer(stereo, tmp_path, *numbered(100, 101, 102), formats="pfm,video")
    assert (result.status, result.errors) == (0, [])
    assert [n for n in names(tmp_path / "out") if n.endswith(".pfm")] == [
        f"left_000{number}_disparity.pfm" for number in (100, 101, 102)
    ]
    assert Video(tmp_path / "out" / "left_color.mp4").count() == 3


def test_a_gap_in_both_views_triggers_a_warning_and_the_rest_is_matched(stereo, numbered, tmp_path):
    result = infer(stereo, tmp_path, *numbered(3, 4, 7, 9))
    assert result.status == 0
    (line,) = result.errors
    assert line.startswith("warning: ")
    assert "left_000005.png" in line
    assert "3 to 9" in line
    assert "3 of the numbers 3 to 9 are missing" in line
    assert len(list((tmp_path / "out").glob("*.pfm"))) == 4
    assert (tmp_path / "out" / "left_000009_disparity.pfm").is_file()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_number_missing_from_one_view_is_one_line_before_any_work(
    stereo, numbered, tmp_path, side
):
    patterns = numbered(0, 1, 2)
    (tmp_path / f"{side}_000001.png").unlink()
    result = infer(stereo, tmp_path, *patterns)
    assert result.status == 1
    (line,) = result.errors
    assert f"{side}_000001.png: no such file" in line
    assert not (tmp_path / "out").exists()


def test_a_damaged_numbered_image_is_named_and_the_others_are_written(stereo, numbered, tmp_path):
    patterns = numbered(0, 1, 2)
    damaged = tmp_path / "right_000001.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    result = infer(stereo, tmp_path, *patterns, formats="pfm,video")
    assert result.status == 1
    (line,) = result.errors
    assert str(damaged) in line
    maps = sorted(path.name for path in (tmp_path / "out").glob("*.pfm"))
    assert maps == [f"left_00000{number}_disparity.pfm" for number in (0, 2)]
    assert Video(tmp_path / "out" / "left_color.mp4").count() == 2


@pytest.mark.parametrize("pattern", ["nothing_%06d.png", "left_%03d.png", "left_%d.png"])
def test_a_pattern_without_files_says_what_it_looked_for(stereo, numbered, tmp_path, pattern):
    _, right = numbered(0, 1)
    result = infer(stereo, tmp_path, tmp_path / pattern, right)
    assert result.status == 1
    (line,) = result.errors
    assert f"{pattern}: no file of such a name, like {pattern % 0}" in line


@pytest.mark.parametrize(
    ("pattern", "files", "name"),
    [
        ("%d.png", {1: "1.png", 12: "12.png"}, "folder"),
        ("%03d_left.png", {7: "007_left.png", 1234: "1234_left.png"}, "left"),
        ("100%_%02d.png", {0: "100%_00.png"}, "100%"),
        ("a%4d.b.png", {3: "a   3.b.png"}, "a.b"),
    ],
)
def test_patterns_match_what_printf_prints(tmp_path, pattern, files, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    for other in ("01.png", "1.jpg", "x.png", "7_left.png", "a3.b.png", ".png"):
        (folder / other).write_bytes(b"x")
    for file in files.values():
        (folder / file).write_bytes(b"x")
    found = Numbered(str(folder / pattern))
    assert {number: path.name for number, path in found.files.items()} == files
    assert found.name == name


def test_a_file_of_exactly_that_name_is_not_a_pattern(tmp_path):
    picture = tmp_path / "50%d.png"
    assert is_numbered(str(picture))
    picture.write_bytes(b"x")
    assert not is_numbered(str(picture))


def test_a_pattern_of_several_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match="several numbers"):
        Numbered(str(tmp_path / "a_%02d_%02d.png"))


def test_a_truncated_video_triggers_a_warning_with_both_counts(stereo, films, tmp_path):
    content = films[0].read_bytes()
    for film in films:
        film.write_bytes(content[: int(len(content) * 0.7)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = Video(films[0]).count()
    assert 0 < count < COUNT
    assert f"says it holds {COUNT} frames, but only {count} " in str(caught[0].message)
    result = infer(stereo, tmp_path, films[0], "--packing", "top-bottom")
    assert result.status == 0
    assert [line for line in result.errors if f"{films[0]}: says it holds {COUNT} frames" in line]


def test_a_complete_video_triggers_no_warning(films):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Video(films[0]).count() == COUNT


def test_videos_of_different_sizes_are_one_line_and_leave_nothing(stereo, films, tmp_path):
    small = write(tmp_path / "small.avi", [np.ascontiguousarray(v[1][:32]) for v in scenes()])
    result = infer(stereo, tmp_path, films[0], small)
    assert result.status == 1
    (line,) = result.errors
    assert "96x48" in line
    assert "96x32" in line
    assert not (tmp_path / "out").exists()


def test_a_glob_of_one_video_is_that_video(stereo, films, tmp_path):
    result = infer(stereo, tmp_path, tmp_path / "l*.avi", tmp_path / "[r].avi")
    assert (result.status, result.errors) == (0, [])
    assert (tmp_path / "out" / "l_000003_disparity.pfm").is_file()


def test_a_glob_of_several_videos_is_one_line(stereo, films, tmp_path):
    result = infer(stereo, tmp_path, tmp_path / "*.avi", films[1])
    assert result.status == 1
    (line,) = result.errors
    assert "2 videos" in line
    assert str(films[0]) in line


def test_a_video_may_have_any_suffix(stereo, films, tmp_path):
    paths = [film.rename(film.with_suffix(".take")) for film in films]
    result = infer(stereo, tmp_path, *paths)
    assert (result.status, result.errors) == (0, [])
    assert len(list((tmp_path / "out").glob("*.pfm"))) == COUNT


def test_images_and_texts_of_any_suffix_are_not_videos(tmp_path):
    picture = tmp_path / "a.weird"
    Image.fromarray(scenes(1)[0][0]).save(picture, "PNG")
    (tmp_path / "b.txt").write_text("a\nb\n" * 300)
    for path in (picture, tmp_path / "b.txt", tmp_path / "none.take", tmp_path):
        assert not is_video(str(path))
    assert is_video("rtsp://camera.example/stream")


def test_an_address_that_cannot_be_opened_is_one_line(stereo, tmp_path):
    result = infer(stereo, tmp_path, "file:///nowhere/video.mp4", "--packing", "side-by-side")
    assert result.status == 1
    (line,) = result.errors
    assert "file:///nowhere/video.mp4: OpenCV cannot open it" in line


def test_two_threads_read_the_frames_that_they_ask_for(tmp_path):
    pictures = []
    for number in range(12):
        pictures.append(tmp_path / f"{number}.png")
        Image.new("L", (64, 32), 20 * number).convert("RGB").save(pictures[-1])
    write_video(tmp_path / "a.mp4", pictures, 5.0, "a.mp4")
    video = Video(tmp_path / "a.mp4")

    def error(index):
        return abs(float(video.read(index).mean()) - 20 * index)

    with ThreadPoolExecutor(2) as pool:
        order = [index for k in range(40) for index in (4 + k % 8, 0)]
        assert max(pool.map(error, order)) < 8

"""What `infer` does only once, or not at all."""

import numpy as np
import pytest
from PIL import Image

from stereo.geometry import Calibration
from stereo.matching import sgbm

COUNT = 3
SGBM = ("--model", "sgbm", "--max-disparity", "16")


@pytest.fixture
def frames(tmp_path, rng):
    for number in range(COUNT):
        for side in "LR":
            (tmp_path / side).mkdir(exist_ok=True)
            view = rng.integers(0, 256, (24, 48, 3), np.uint8)
            Image.fromarray(view).save(tmp_path / side / f"{number:06d}.png")
    return tmp_path


@pytest.fixture
def matches(monkeypatch):
    """Return the list that each match of a pair is added to."""
    match, calls = sgbm.semi_global_matching, []

    def counted(left, *rest):
        calls.append(left.copy())
        return match(left, *rest)

    monkeypatch.setattr(sgbm, "semi_global_matching", counted)
    return calls


def test_the_frame_whose_colour_scale_all_share_is_matched_once(stereo, frames, matches):
    call = ("infer", frames / "L" / "%06d.png", frames / "R" / "%06d.png", *SGBM)
    output = ("--output", frames / "out", "--formats", "color,npy")
    assert stereo(*call, *output).status == 0
    assert len(matches) == COUNT
    colors = sorted((frames / "out").glob("*_color.png"))
    whole = [path.read_bytes() for path in colors]
    for path in colors[1:]:
        path.unlink()
    # Resumed, the first frame's map is not made: it is matched for the scale alone, once.
    assert stereo(*call, *output, "--resume").status == 0
    assert len(matches) == 2 * COUNT
    assert [path.read_bytes() for path in colors] == whole


def test_each_view_of_a_film_is_steadied_by_itself(stereo, tmp_path, rng):
    scene = rng.integers(20, 230, (24, 53, 3))
    for number in range(COUNT):
        for side, view in (("L", scene[:, :-5]), ("R", scene[:, 5:])):
            (tmp_path / side).mkdir(exist_ok=True)
            noisy = (view + rng.normal(0, 8, view.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(tmp_path / side / f"{number:06d}.png")
    call = ("infer", tmp_path / "L" / "%06d.png", tmp_path / "R" / "%06d.png", *SGBM)
    found = []
    for view in ("both", "right"):
        output = ("--output", tmp_path / view, "--formats", "npy,video", "--view", view)
        assert stereo(*call, *output, "--steady").status == 0
        films = [path.name for path in (tmp_path / view).glob("*.mp4")]
        assert sorted("right" in name for name in films) == [False, True][view == "right" :]
        paths = sorted((tmp_path / view).glob("*_right_disparity.npy"))
        found.append([np.load(path) for path in paths])
    assert len(found[0]) == COUNT
    assert np.array_equal(*found)


def test_a_calibration_is_fitted_once_for_pairs_of_one_size(stereo, frames, monkeypatch):
    Calibration.rectified(fx=40, cx0=24, cy=12, baseline=0.1).write(frames / "calibration.json")
    fit, calls = Calibration.fitted, []

    def counted(self, *size):
        calls.append(size)
        return fit(self, *size)

    monkeypatch.setattr(Calibration, "fitted", counted)
    call = ("infer", frames / "L", frames / "R", "--calibration", frames / "calibration.json")
    assert stereo(*call, *SGBM, "--output", frames / "out").status == 0
    assert len(list((frames / "out").glob("*.ply"))) == COUNT
    assert calls == [(48, 24)]


def test_a_view_without_a_file_is_not_matched(stereo, frames, matches):
    np.save(frames / "truth.npy", np.full((24, 48), 5, np.float32))
    views = (frames / "L" / "000000.png", frames / "R" / "000000.png", *SGBM)
    options = ("--ground-truth", frames / "truth.npy", "--formats", "error", "--view", "both")
    called = stereo("infer", *views, "--output", frames / "out", *options)
    assert "1 of 1 maps written" in called.out
    assert len(matches) == 1


def test_a_calibration_that_no_format_uses_is_said(stereo, frames):
    Calibration.rectified(fx=40, cx0=24, cy=12, baseline=0.1).write(frames / "calibration.json")
    views = (frames / "L", frames / "R", *SGBM, "--calibration", frames / "calibration.json")
    for formats, warned in (("color,pfm", True), ("color,depth", False)):
        called = stereo("infer", *views, "--output", frames / formats, "--formats", formats)
        said = "--calibration changes no file of these formats; add depth or ply or glb"
        assert any(said in line for line in called.errors) == warned


def test_disparities_that_the_calibration_states_are_searched_or_said(stereo, frames):
    text = "cam0=[40 0 24; 0 40 12; 0 0 1]\ncam1=[40 0 24; 0 40 12; 0 0 1]\ndoffs=0\n"
    text += "baseline=100\nwidth={}\nheight={}\nndisp={}\n"
    views = (frames / "L", frames / "R", *SGBM)
    cases = ((48, 24, 30, "30"), (24, 12, 20, "40"), (96, 48, 30, ""), (48, 24, 48, ""))
    for number, (width, height, stated, said) in enumerate(cases):  # the last is as in ETH3D's
        path = frames / "calib.txt"
        path.write_text(text.format(width, height, stated))
        call = ("--output", frames / f"out{number}", "--calibration", path)
        found = [
            line for line in stereo("infer", *views, *call).errors if "disparities of up" in line
        ]
        assert len(found) == bool(said)
        assert all(
            f"disparities of up to {said} px, more than are looked for" in each for each in found
        )

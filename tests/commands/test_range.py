"""Where the search starts: --min-disparity, and what is said of pairs that need it."""

import json

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

import stereo as package
from stereo.app.models import Models
from stereo.app.pipeline import Request, perform
from stereo.data.io import colors
from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.data.sets.datasets import open_dataset
from stereo.errors import InputError, UsageError
from stereo.geometry import Calibration
from stereo.geometry.check import check_pair
from stereo.matching.estimate import Estimate
from stereo.matching.matcher import Matcher
from stereo.models.config import MAX_DISPARITY

SGBM = ("--model", "sgbm", "--max-disparity", "96")
BEHIND = 20  # pixels: two thirds of the bundled pair's features are less


@pytest.fixture(scope="module")
def sample():
    return open_dataset("sceneflow", REPOSITORY / "datasets/samples").samples[0].read()


def shifted(sample, by):
    """Return views and truth whose disparities differ by ``by`` pixels from the pair's."""
    width = sample.left.shape[1]
    if by < 0:
        return sample.left[:, -by:], sample.right[:, : width + by], sample.disparity[:, -by:] + by
    return sample.left[:, : width - by], sample.right[:, by:], sample.disparity[:, :-by] + by


@pytest.fixture(scope="module")
def folder(sample, tmp_path_factory):
    """Write the pair with half of the scene behind infinity, its truth and its manifest."""
    root = tmp_path_factory.mktemp("behind")
    left, right, truth = shifted(sample, -BEHIND)
    Image.fromarray(left).save(root / "left.png")
    Image.fromarray(right).save(root / "right.png")
    write_disparity(root / "truth.pfm", truth.astype(np.float32))
    entry = {"name": "a", "left": "left.png", "right": "right.png", "gt": "truth.pfm"}
    (root / "manifest.json").write_text(json.dumps([entry]))
    return root


class Exact:
    """An engine that finds each left pixel's own number in the right view, at 0 or above."""

    def __call__(self, lefts, rights):
        found = []
        for left, right in zip(lefts, rights, strict=True):
            columns = np.arange(left.shape[1])
            disparity = np.zeros(left.shape[:2], np.float32)
            for x in columns:
                same = np.flatnonzero(right[0, : x + 1, 0] == left[0, x, 0])
                disparity[:, x] = x - same.max() if same.size else 0
            found.append(Estimate(disparity, disparity[None] / 100))
        return found


def exact(low, count=64):
    return Matcher(Exact(), None, {"name": "x", "max_disparity": count, "min_disparity": low})


@pytest.mark.parametrize("low", [-40, -20, -7, -1, 1, 5, 10])
@pytest.mark.parametrize("view", ["left", "right"])
def test_the_views_are_moved_so_that_the_engine_starts_at_0(low, view):
    numbers = np.random.default_rng(0).permutation(256).astype(np.uint8)
    true = low + 6
    left, right = (
        np.repeat(numbers[start : start + 130], 3).reshape(1, 130, 3) for start in (50, 50 + true)
    )
    result = exact(low)(left, right, view=view)
    assert result.disparity.shape == (1, 130)
    inside = slice(max(true, 0) + abs(low), 130 - abs(low) - abs(true))
    assert inside.stop - inside.start >= 10
    assert (result.disparity[0, inside] == true).all()
    assert (result.disparity >= low).all()


def test_certainties_are_cut_like_the_map():
    left = np.repeat(np.arange(40, dtype=np.uint8), 3).reshape(1, 40, 3)
    estimate, cues = exact(-8).confidence_features(left, np.roll(left, 3, axis=1))
    assert estimate.certainty.shape == (1, 1, 40)
    assert np.array_equal(estimate.certainty[0], (estimate.disparity + 8) / 100)
    assert all(bool(each.isfinite().all()) for each in cues.values.values())


@pytest.mark.parametrize("by", [-20, 30])
@pytest.mark.parametrize("model", ["sgbm", "ea_stereo"])
def test_a_shifted_pair_has_the_shifted_map(sample, model, by):
    options = {"max_disparity": 96}
    views = [view[80:176] for view in shifted(sample, by)[:2]]
    expected = package.load(model, **options)(sample.left[80:176], sample.right[80:176])
    expected = expected.disparity[:, -by:] if by < 0 else expected.disparity[:, :-by]
    moved = package.load(model, **options, min_disparity=by)
    result = moved(*views)
    apart = np.abs(result.disparity - by - expected)[:, 48:-64]
    assert np.median(apart) < 0.1  # another phase of the strides
    assert np.mean(apart > 1) < 0.05
    assert result.disparity.min() >= by
    pair = moved.both(*views)
    assert np.array_equal(pair[0].disparity, result.disparity)
    assert np.array_equal(pair[1].disparity, moved(*views, view="right").disparity)
    assert np.median(result.confidence) > 0.85
    assert np.isfinite(result.confidence).all()


def test_a_start_above_0_costs_nothing_at_the_left_rim(sample):
    left, right, truth = (view[80:240] for view in shifted(sample, 60))
    plain = package.load(max_disparity=160)(left, right).disparity
    found = package.load(max_disparity=96, min_disparity=60)(left, right).disparity
    plain_error, error = (np.abs(each - truth)[:, :140].mean() for each in (plain, found))
    assert error < plain_error + 0.5


@pytest.mark.parametrize(
    ("size", "low"), [((1, 1), -13), ((3, 5), -13), ((17, 31), -13), ((17, 31), 20), ((17, 31), 30)]
)
@pytest.mark.parametrize("model", ["sgbm", "ea_stereo"])
def test_any_size_gives_a_finite_map_from_the_smallest_disparity_on(rng, model, size, low):
    matcher = package.load(model, max_disparity=32, min_disparity=low)
    left, right = rng.integers(0, 256, (2, *size, 3), np.uint8)
    for view in ("left", "right"):
        result = matcher(left, right, view=view)
        assert result.disparity.shape == result.confidence.shape == size
        assert result.disparity.dtype == np.float32
        assert np.isfinite(result.disparity).all() and (result.disparity >= low).all()
        assert ((result.confidence >= 0) & (result.confidence <= 1)).all()


def test_a_batch_tiles_and_coarse_to_fine_start_there_too(sample):
    left, right, truth = (view[64:160] for view in shifted(sample, -20))
    options = {"max_disparity": 96, "min_disparity": -20}
    plain = package.load(**options)(left, right).disparity
    for result in package.load(**options).batch([left, left], [right, right]):
        assert np.abs(result.disparity - plain).max() < 0.01
    for manner in ({"tile": "256"}, {"coarse_to_fine": True}):
        found = package.load(**options, **manner)(left, right).disparity
        assert np.abs(found - truth).mean() < np.abs(plain - truth).mean() + 0.3


@pytest.mark.parametrize("wrong", [1.5, "8", True, None])
def test_min_disparity_is_a_whole_number(wrong):
    with pytest.raises(UsageError, match="whole number"):
        package.load("sgbm", min_disparity=wrong)


@pytest.mark.parametrize("low", [48, MAX_DISPARITY, -64, -MAX_DISPARITY])
def test_a_range_beyond_every_pixel_is_refused(low):
    matcher = package.load("sgbm", max_disparity=16, min_disparity=low)
    blank = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(InputError, match="cannot be in images 48 pixels wide"):
        matcher(blank, blank)


@pytest.mark.parametrize("low", [MAX_DISPARITY + 1, -MAX_DISPARITY - 1, 10**12])
def test_an_impossible_range_is_refused_before_a_model_is_loaded(low):
    with pytest.raises(UsageError, match="min disparity"):
        package.load("sgbm", min_disparity=low)


def test_the_matcher_repr_describes_it():
    assert repr(package.load("sgbm", min_disparity=-32)) == (
        "<Matcher sgbm, disparities -32 to 160 px, device cpu, precision int16>"
    )
    assert repr(package.load(precision="fp32", device="cpu", scale="2")) == (
        "<Matcher ea_stereo, disparities 0 to 192 px, device cpu, precision float32, scale 2>"
    )


def test_a_scene_behind_infinity_is_a_fault_with_its_remedy(sample):
    left, right, truth = shifted(sample, -BEHIND)
    for quick in (False, True):
        found = check_pair(left, right, 192, quick=quick)
        (fault,) = found.faults
        assert fault.startswith("negative: ")
        low = int(fault.split("--min-disparity ")[1].split(",")[0])
        assert truth.min() - 24 < low <= np.percentile(truth, 2)
        again = check_pair(left, right, 192, min_disparity=low, quick=quick)
        assert again.faults == []
        assert again.range[0] < -10
        assert [note.split(":")[0] for note in again.notes] == ["range"]
        assert f"within --max-disparity 192 from --min-disparity {low} on" in again.notes[-1]


def test_a_start_above_the_scene_triggers_a_warning(sample):
    found = check_pair(sample.left, sample.right, 192, min_disparity=40)
    assert any("rather than 40" in line for line in (*found.faults, *found.notes))
    assert found.notes[-1].startswith("range: features have disparities of ")
    assert "within" not in found.notes[-1]
    near = check_pair(*shifted(sample, 30)[:2], 96, min_disparity=32)
    assert near.faults == []
    assert "within --max-disparity 96" in near.notes[-1]


def test_converging_cameras_get_the_start_to_use(sample):
    (fault,) = check_pair(*shifted(sample, -80)[:2], 192).faults
    assert fault.startswith("swapped")
    low = int(fault.split("--min-disparity ")[1])
    assert check_pair(*shifted(sample, -80)[:2], 192, min_disparity=low).faults == []


def test_infer_warns_like_check_pair_and_the_remedy_works(stereo, folder, tmp_path):
    call = ("infer", folder / "left.png", folder / "right.png", *SGBM, "--output", tmp_path)
    call += ("--ground-truth", folder / "truth.pfm")
    called = stereo(*call)
    (warning,) = [line for line in called.errors if "negative" in line]
    assert warning.startswith("warning: left: negative: ")
    start = warning.split("use --min-disparity ")[1].split(",")[0]
    assert "note: left: range: " in called.out
    called = stereo(*call, "--min-disparity", start, "--formats", "pfm,npy,color")
    assert (called.status, called.errors) == (0, [])
    assert f"mask {start} <= d < 192" in called.out
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["protocol"]["mask"] == f"{start} <= d < 192"
    assert report["model"]["min_disparity"] == int(start)
    assert report["summary"]["epe_pixel"] < 2
    truth = read_disparity(folder / "truth.pfm")
    assert report["summary"]["valid_pixels"] == np.sum((truth >= int(start)) & (truth != 0))
    for suffix in ("pfm", "npy"):
        disparity = read_disparity(tmp_path / f"left_disparity.{suffix}")
        assert disparity.min() < -10
        assert np.abs(disparity - truth).mean() < 2


def test_every_pair_of_a_folder_is_checked(stereo, folder, sample, tmp_path):
    for side, view in (("l", sample.left), ("r", sample.right)):
        (tmp_path / side).mkdir()
        Image.fromarray(view).save(tmp_path / side / "a.png")
        name = {"l": "left.png", "r": "right.png"}[side]
        (tmp_path / side / "b.png").write_bytes((folder / name).read_bytes())
    called = stereo("infer", tmp_path / "l", tmp_path / "r", *SGBM, "--output", tmp_path / "out")
    assert [line.split(":")[1].strip() for line in called.errors if "negative" in line] == ["b"]


def test_points_behind_infinity_have_no_depth_and_are_0_in_a_png(stereo, folder, tmp_path):
    Calibration.rectified(fx=448, cx0=209, cy=128, baseline=0.1).write(tmp_path / "calib.json")
    call = ("infer", folder / "left.png", folder / "right.png", *SGBM, "--output", tmp_path)
    call += ("--calibration", tmp_path / "calib.json", "--formats", "npy,png16,depth,ply,color")
    called = stereo(*call, "--min-disparity", "-32", "--max-depth", "1e9")
    disparity = np.load(tmp_path / "left_disparity.npy")
    behind = disparity <= 0
    (warning,) = [line for line in called.errors if "clamped" in line]
    below = int(np.sum(np.rint(disparity.astype(float) * 256) < 0))
    assert f"{below} negative ones to 0, which means none" in warning
    with Image.open(tmp_path / "left_disparity.png") as picture:
        assert (np.asarray(picture)[behind] == 0).all()
    (warning,) = [line for line in called.errors if "behind infinity (disp" in line]
    assert f"{100 * behind.mean():.1f} % of the map" in warning
    depth = np.load(tmp_path / "left_depth.npy")
    assert np.array_equal(depth > 0, ~behind)
    assert b"element vertex" in (tmp_path / "left.ply").read_bytes()
    low, high = colors.disparity_scale(disparity)
    assert (low, high) == (-16, 64)
    with Image.open(tmp_path / "left_color.png") as picture:
        height = disparity.shape[0]
        shown = np.asarray(picture)[:height]
    assert np.array_equal(shown, colors.colorize(disparity, high, low=low))


def test_evaluate_counts_negative_disparities_if_they_are_searched(stereo, folder, tmp_path):
    call = ("evaluate", "--dataset", "manifest", "--root", folder, *SGBM, "--output")
    assert stereo(*call, tmp_path / "plain").status == 0
    assert stereo(*call, tmp_path / "low", "--min-disparity", "-32").status == 0
    plain, low = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "low")
    )
    truth = read_disparity(folder / "truth.pfm")
    assert plain["summary"]["valid_pixels"] == np.sum(truth > 0)
    assert low["summary"]["valid_pixels"] == truth.size - np.sum(truth == 0)
    assert low["protocol"]["mask"] == "-32 <= d < 192"
    assert low["summary"]["epe_pixel"] < 2
    assert "Disparity -16" in (tmp_path / "low" / "report.html").read_text()


def test_evaluate_reports_how_much_truth_is_out_of_range(stereo, folder, tmp_path):
    call = ("evaluate", "--dataset", "manifest", "--root", folder, "--output", tmp_path)
    call += ("--model", "sgbm", "--max-disparity")
    truth = read_disparity(folder / "truth.pfm")
    known = truth[truth != 0]
    out = stereo(*call, "16").out
    below, beyond = 100 * np.mean(known < 0), 100 * np.mean(known >= 16)
    assert f"note: {below:.1f} % of the ground truth lies below 0 px" in out
    assert f"note: {beyond:.1f} % of the ground truth lies from 16 px on" in out
    assert "of the ground truth lies" not in stereo(*call, "96", "--min-disparity", "-32").out


def test_infer_reports_how_much_truth_is_out_of_range(stereo, folder, tmp_path):
    call = ("infer", folder / "left.png", folder / "right.png", "--output", tmp_path, *SGBM)
    call += ("--ground-truth", folder / "truth.pfm")
    truth = read_disparity(folder / "truth.pfm")
    below = 100 * np.mean(truth[truth != 0] < 0)
    assert f"note: {below:.1f} % of the ground truth lies below 0 px" in stereo(*call).out
    assert "of the ground truth lies" not in stereo(*call, "--min-disparity", "-32").out


@pytest.mark.parametrize(
    ("low", "status"), [("-99999999999999999999", 2), ("8193", 2), ("1000", 1)]
)
def test_a_start_that_does_not_fit_the_pair_is_refused_first(stereo, folder, tmp_path, low, status):
    out = tmp_path / "out"
    call = ("infer", folder / "left.png", folder / "right.png", "--output", out, *SGBM)
    called = stereo(*call, "--ground-truth", folder / "truth.pfm", f"--min-disparity={low}")
    assert called.status == status
    assert len(called.errors) == 1
    assert not out.exists() or not list(out.iterdir())


def test_a_pair_out_of_range_is_reported_once_among_several(stereo, folder, tmp_path):
    for side in ("left", "right"):
        (tmp_path / side).mkdir()
        for name in ("a", "b"):
            (tmp_path / side / f"{name}.png").write_bytes((folder / f"{side}.png").read_bytes())
    call = ("infer", tmp_path / "left", tmp_path / "right", "--output", tmp_path / "out", *SGBM)
    called = stereo(*call, "--min-disparity=1000")
    assert called.status == 1
    assert len(called.errors) == 2
    assert all("cannot be in images" in line for line in called.errors)


def test_the_page_reports_how_much_truth_is_out_of_range(folder, tmp_path):
    files = folder / "left.png", folder / "right.png"
    request = Request(*files, "sgbm", 96, truth=folder / "truth.pfm")
    outcome = perform(request, Models(), tmp_path, lambda *_: None)
    assert any("of the ground truth lies below 0 px" in note for note in outcome.notes)


def test_a_server_takes_no_negative_disparities(stereo, tmp_path, monkeypatch):
    monkeypatch.setattr("stereo.commands.submit._find_pairs", lambda *_: [])
    call = ("submit", "kitti2015", "--root", tmp_path, "--output", tmp_path / "a.zip")
    called = stereo(*call, "--model", "sgbm", "--min-disparity", "-16")
    assert called.status == 2
    assert "no negative disparities" in called.errors[-1]


def test_check_pair_takes_the_start(stereo, folder):
    pair = ("check-pair", folder / "left.png", folder / "right.png")
    assert stereo(*pair).status == 1
    called = stereo(*pair, "--min-disparity", "-32")
    assert (called.status, called.errors) == (0, [])


def test_check_pair_refuses_an_impossible_start(stereo, folder):
    pair = ("check-pair", folder / "left.png", folder / "right.png")
    called = stereo(*pair, f"--min-disparity=-{10**20}")
    assert (called.status, len(called.errors)) == (2, 1)


def test_the_page_searches_from_min_disparity(folder, tmp_path):
    request = Request(
        folder / "left.png",
        folder / "right.png",
        "sgbm",
        96,
        truth=folder / "truth.pfm",
        min_disparity=-32,
    )
    outcome = perform(request, Models(), tmp_path, lambda *_: None)
    assert outcome.low < -10
    assert outcome.scores["all"]["epe"] < 2
    assert outcome.layers[0].low == -16
    assert outcome.faults == []


def test_scales_start_at_0_unless_a_map_goes_below():
    assert colors.disparity_scale(np.linspace(0, 60, 100)) == (0, 64)
    assert colors.disparity_scale(np.linspace(-20, 60, 100)) == (-24, 64)
    assert colors.disparity_scale(np.linspace(-20, -10, 100)) == (-24, 4)
    assert colors.disparity_scale(np.array([np.nan])) == (0, 4)
    first, last = colors.colorize(np.array([[-24.0, 64.0]]), 64, low=-24)[0]
    assert np.array_equal(first, colors.colorize(np.zeros((1, 1)), 1)[0, 0])
    assert np.array_equal(last, colors.colorize(np.ones((1, 1)), 1)[0, 0])

"""Valid files of every kind that is read, for ``fuzz.py`` to damage."""

import functools
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TESTS = ("tests", "tests/geometry", "tests/commands")
sys.path[:0] = [str(REPOSITORY / each) for each in TESTS]  # files of real forms stand there

Read = Callable[[Path], object]


def readers(folder: Path) -> Iterator[tuple[str, list[Path], Read]]:
    """Write valid files, a folder per reader; yield the reader's name, the files to damage, it."""
    import cv2
    import numpy as np
    import test_calibration as texts
    import test_hostile_files as files
    import torch
    from PIL import Image
    from test_submit import write_tree

    from stereo import geometry, load
    from stereo.commands.resume_log import ResumeLog
    from stereo.commands.submit import submit, validate
    from stereo.data.io import decoders, disparities, images
    from stereo.data.io.videos import Video, write_video
    from stereo.data.sets import listing, manifest
    from stereo.data.sets.datasets import open_dataset
    from stereo.data.sets.sample import SampleFiles
    from stereo.evaluation.evaluate import evaluate
    from stereo.evaluation.report.evaluation import compare
    from stereo.models import build_network, convert
    from stereo.training.recipe import RECIPES
    from stereo.training.state import RunState, load_run, random_state, save_run

    rng = np.random.default_rng(0)
    view = rng.integers(0, 256, (32, 48, 3), np.uint8)
    disparity = rng.uniform(1, 9, (32, 48)).astype(np.float32)

    def within(name: str) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    def text(path: Path, content: str) -> Path:
        path.write_text(content)
        return path

    def match(path: Path) -> object:
        return load(path)(view, view).confidence

    home = within("picture")
    for name in ("8.png", "8.jpg", "8.webp", "8.bmp", "8.tif", "8.ppm", "8.gif", "8.jp2", "8.mpo"):
        Image.fromarray(view).save(home / name)
    Image.fromarray(view[..., 0].astype(np.uint16) * 257).save(home / "16.png")
    Image.fromarray(view).quantize(4).save(home / "palette.png")
    yield "picture", sorted(home.iterdir()), images.read_image

    home = within("disparity")
    for suffix in ("pfm", "npy", "npz", "tiff", "png"):
        disparities.write_disparity(home / f"d.{suffix}", disparity)
    yield "disparity", sorted(home.iterdir()), disparities.read_disparity

    home = within("mask")
    for suffix in ("png", "pgm", "bmp"):
        Image.fromarray(view[..., 0]).save(home / f"m.{suffix}")
    yield "mask", sorted(home.iterdir()), decoders.mask_is_255

    home = within("calibration")
    cameras = {"left": texts.ROS.format(side="left", shift=0)}
    cameras["right"] = texts.ROS.format(side="right", shift=-39.4)
    k = [[500, 0, 24], [0, 500, 16], [0, 0, 1]]
    cameras |= {
        "middlebury.txt": texts.MIDDLEBURY,
        "eth3d.txt": texts.ETH3D,
        "kitti.txt": texts.KITTI,
        "raw.txt": texts.KITTI_RAW,
        "k.txt": texts.K_TXT,
        "scene.txt": texts.SCENE_FLOW,
        "kalibr.yaml": texts.KALIBR,
        "orb2.yaml": texts.ORB_2,
        "orb3.yaml": texts.ORB_3.format(kind="PinHole") + texts.ORB_3_RAW,
        "opencv.yaml": texts.opencv_yaml(
            M1=k, D1=[0.1, 0, 0, 0, 0], M2=k, D2=[0.1, 0, 0, 0, 0], R=np.eye(3), T=[-0.1, 0, 0]
        ),
    }
    written = [
        text(home / (n if "." in n else f"{n}.yaml"), content) for n, content in cameras.items()
    ]
    for form in ("xml", "json"):
        storage = cv2.FileStorage(str(home / f"opencv.{form}"), cv2.FILE_STORAGE_WRITE)
        for key, value in {"M1": k, "M2": k, "R": np.eye(3), "T": [[-0.1], [0], [0]]}.items():
            storage.write(key, np.asarray(value, float))
        storage.release()
        written.append(home / f"opencv.{form}")
    ours = geometry.Calibration.rectified(fx=500, cx0=24, cy=16, baseline=0.1, size=(48, 32))
    ours.write(home / "ours.json")
    yield "calibration", [*written, home / "ours.json"], geometry.Calibration.read

    home = within("manifest")
    Image.fromarray(view).save(home / "v.png")
    disparities.write_disparity(home / "d.png", disparity)
    pair = {"name": "a", "left": "v.png", "right": "v.png", "gt": "d.png", "gt_scale": 256}
    pairs = [pair, pair | {"name": "b", "nonoccluded": "v.png", "calibration": "c.json"}]
    yield (
        "manifest",
        [text(home / "manifest.json", json.dumps(pairs))],
        lambda path: [sample.read() for sample in manifest.read_manifest(path.parent)[:1]],
    )

    home = within("frame list")
    lines = [f"TRAIN/A/{number:04}/left/0006.png" for number in range(5)]
    yield "frame list", [text(home / "unused.txt", "\n".join(lines))], listing.read_unused

    home = within("recipe")
    for recipe in ("quickstart", "finetune"):
        shutil.copy(RECIPES / f"{recipe}.yaml", home)
    yield "recipe", sorted(home.iterdir()), _read_recipe

    home = within("checkpoint")
    plain = files.write_checkpoint(home / "a.safetensors")
    with_attention = files.with_attention("efficient", heads=2)
    config = files.NetworkConfig.from_dict(with_attention)
    files.write_checkpoint(home / "b.safetensors", config)
    yield "checkpoint", [plain, home / "b.safetensors"], match

    home = within("run state")
    network = build_network(files.FAST)
    optimizer = torch.optim.AdamW(network.parameters())
    shipped = files.load_checkpoint(plain)
    state = [random_state(torch.device("cpu"))]
    save_run(
        home / "last.safetensors",
        shipped,
        RunState(1, network.state_dict(), optimizer.state_dict(), {}, state),
    )
    yield "run state", [home / "last.safetensors"], load_run

    home = within("onnx")
    (home / "a.onnx").write_bytes(files.graph().SerializeToString())
    yield "onnx", [home / "a.onnx"], match

    home = within("tar")
    psmnet = build_network(files.NetworkConfig("psmnet")).state_dict()
    weights = {name: torch.zeros((), dtype=t.dtype).expand(t.shape) for name, t in psmnet.items()}
    for name, zipped in (("a.tar", True), ("old.tar", False)):
        torch.save({"state_dict": weights}, home / name, _use_new_zipfile_serialization=zipped)
    yield (
        "tar",
        sorted(home.iterdir()),
        lambda path: convert.convert_psmnet(path, align_corners=True),
    )

    sgbm = load("sgbm", max_disparity=16)
    for benchmark in ("kitti2015", "middlebury_v3"):
        home = within(f"archive of {benchmark}")
        write_tree(home / "data", benchmark)
        submit(sgbm, benchmark, home / "data", home / "a.zip", partial=True)
        splits = ("test",) if benchmark == "kitti2015" else ("train", "test")
        items = [
            each
            for split in splits
            for each in open_dataset(benchmark, home / "data", split=split, truth=False).samples
            if isinstance(each, SampleFiles)
        ]
        check = functools.partial(validate, benchmark=benchmark, items=items, method="stereo")
        yield home.name, [home / "a.zip"], check

    home = within("metrics.json")
    shutil.copytree(folder / "manifest", home / "data")
    text(home / "data" / "manifest.json", json.dumps([pair, pair | {"name": "b"}]))
    evaluate(sgbm, "manifest", home / "data", home / "run")
    yield (
        "metrics.json",
        [home / "run" / "metrics.json"],
        lambda path: compare([path, path], path.parent / "report"),
    )

    home = within("infer.jsonl")
    record = ResumeLog(home, {"max_disparity": 16}, [plain])
    record.start()
    record.add("a", [plain], [plain])

    def resume(path: Path) -> None:
        again = ResumeLog(path.parent, {"max_disparity": 16}, [plain])
        again.read([plain])
        again.has("a", [plain], [plain])

    yield "infer.jsonl", [record.path], resume

    home = within("video")
    write_video(home / "a.mp4", [folder / "picture" / "8.png"] * 3, 25.0, "a.mp4")
    yield "video", [home / "a.mp4"], lambda path: Video(path).count()


def _read_recipe(path: Path) -> None:
    from stereo.commands.cli import _build_parser

    call = ["train", "--config", str(path), "--output", "x"]
    parser, _ = _build_parser(call)
    parser.instantiate(parser.parse_args(call))

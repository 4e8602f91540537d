"""The commands of docs/reproduce.md, on a tiny Scene Flow tree."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from PIL import Image

from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.system.bundled import samples_root
from stereo.system.parsing import parse_yaml
from stereo.training.recipe import RECIPES

COMMANDS = re.findall(
    r"^(?:stereo|torchrun) .*$",
    (REPOSITORY / "docs" / "reproduce.md").read_text().replace("\\\n", ""),
    re.M,
)
SIZE = (96, 160)
SMALL = "--augmentation.crop [64,96] --network.max_disparity 32 --trainer.max_steps 3"
SMALL += " --trainer.batch_size 4 --trainer.workers 0 --trainer.threads 1"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Frames of all three parts, in either pass, cut from the bundled pairs."""
    root = tmp_path_factory.mktemp("sceneflow")
    source = samples_root() / "FlyingThings3D"
    frames = [("FlyingThings3D", f"TRAIN/A/000{k}", "0006") for k in range(3)]
    frames += [("FlyingThings3D", f"TEST/A/000{k}", "0006") for k in range(2)]
    frames += [("Monkaa", "eating_x2", "0000")]
    frames += [("Driving", "15mm_focallength/scene_forwards/fast", "0001")]
    for k, (part, scene, frame) in enumerate(frames):
        taken = f"TEST/A/000{k % 3}"
        for render_pass in ("clean", "final"):
            for side in ("left", "right"):
                path = root / part / f"frames_{render_pass}pass" / scene / side / f"{frame}.png"
                path.parent.mkdir(parents=True)
                view = Image.open(source / "frames_finalpass" / taken / side / "0006.png")
                view.crop((0, 0, SIZE[1], SIZE[0])).save(path)
        disparity = read_disparity(source / "disparity" / taken / "left" / "0006.pfm")
        path = root / part / "disparity" / scene / "left" / f"{frame}.pfm"
        path.parent.mkdir(parents=True)
        write_disparity(path, disparity[: SIZE[0], : SIZE[1]])
    return root


def command(start, *parts):
    """Return the first command that starts so and has all of the parts."""
    return next(c for c in COMMANDS if c.startswith(start) and all(p in c for p in parts))


@pytest.fixture
def call(stereo, monkeypatch):
    """Run a command; ``stereo`` in this process, which spares loading PyTorch again."""
    monkeypatch.chdir(REPOSITORY)

    def run(line, root, more="", status=0):
        line = line.replace("DIR", str(root)).replace("--nproc_per_node 8", "--nproc_per_node 2")
        line = line.replace("--trainer.batch_size 16", "")
        program, *words = [*line.split(), *more.split()]
        if program == "stereo":
            result = stereo(*words)
            assert result.status == status, result.errors
            return result.out
        launcher = [sys.executable, "-m", "torch.distributed.run"]
        done = subprocess.run([*launcher, *words], capture_output=True, text=True)
        assert done.returncode == status, done.stdout[-2000:] + done.stderr[:2000]
        return done.stdout

    return run


def test_every_training_command_takes_ten_epochs():
    """Ten of the 35,454 pairs, whatever the batch."""
    commands = [each for each in COMMANDS if "--config" in each]
    assert len(commands) == 3
    for each in commands:
        (name,) = re.findall(r"--config (\w+)", each)
        trainer = parse_yaml((RECIPES / f"{name}.yaml").read_text(), name)["trainer"]
        given = re.findall(r"--trainer\.(\w+) (\d+)", each)
        trainer |= {key: int(value) for key, value in given}
        batch, steps = trainer["batch_size"], trainer["max_steps"]
        assert abs(batch * steps - 10 * 35_454) < batch
        assert abs(10 * trainer["validate_every"] - steps) < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "recipe"), [("stereo train", "psmnet_sceneflow"), ("torchrun", "ea_psmnet_sceneflow")]
)
def test_a_published_recipe_runs_from_check_to_evaluation(call, tree, tmp_path, start, recipe):
    said = call(command("stereo data check", "--pass clean"), tree, status=1)
    assert "3 complete pairs, 22,390 published" in said
    assert re.findall(r"^(\w+): \d+$", said, re.M) == [
        "count"
    ]  # fewer than published, no other fault
    train = command(start, f"--config {recipe} ")
    run, results = tmp_path / "run", tmp_path / "results"
    train = re.sub(r"--output \S+", f"--output {run}", train)
    said = call(train, tree, f"{SMALL} --data.validation.share 0.4 --trainer.validate_every 3")
    assert "step 3" in said
    evaluate = command("stereo evaluate", "--protocol psmnet")
    evaluate = re.sub(r"--output \S+", f"--output {results}", evaluate)
    evaluate = re.sub(r"--model \S+", f"--model {run / 'best.safetensors'}", evaluate)
    assert "psmnet" in call(evaluate, tree)
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["protocol"]["name"] == "psmnet"
    assert len(metrics["images"]) == 2
    shutil.rmtree(run)

"""Recipes, their checks, and what ``prepare`` makes of them."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_datasets import write_frame
from test_layouts import image, write_tree
from training_runs import SAMPLES

from stereo.data.augmentation.config import AugmentationConfig
from stereo.data.io.disparities import read_disparity, write_disparity
from stereo.data.synthetic import SyntheticConfig
from stereo.data.synthetic.synthesize import synthesize
from stereo.errors import InputError, UsageError
from stereo.models import AttentionConfig, NetworkConfig, build_network
from stereo.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stereo.system.bundled import bundled_weights
from stereo.training import loop
from stereo.training.config import TrainerConfig
from stereo.training.held_out import hold_out, spread
from stereo.training.loop import train
from stereo.training.prepare import prepare
from stereo.training.recipe import RECIPES, DataConfig, Recipe, ValidationConfig, recipe_path

pytest_plugins = ["training_runs"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--config", "quickstrat"],
        ["--config", "quickstart", "--trainer.max_steps", "0"],
        ["--config", "quickstart", "--trainer.steps", "5"],
        ["--config", "quickstart", "--network.name", "psmnt"],
        ["--config", "quickstart", "--network.max_disparity", "100"],
        ["--config", "quickstart", "--max-time", "soon"],
        ["--config", "quickstart", "--data.name", "sceneflow"],
    ],
    ids=lambda w: " ".join(w[2:]) or w[1],
)
def test_wrong_calls_are_one_line(stereo, tmp_path, wrong):
    result = stereo("train", *wrong, "--output", tmp_path / "run")
    assert result.status == 2
    assert len(result.errors) == 1, result.errors
    assert not (tmp_path / "run").exists()


ATTENTION_NAMES = "known: aft_conv, aft_simple, disparity"


FAST = "network: {name: ea_stereo_fast, "


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (FAST + "attention: {name: efficent}}", ATTENTION_NAMES),
        (FAST + "attention: {sites: [eigth]}}", "known: eighth, quarter, sixteenth"),
        (FAST + "attention: {sites: [quarter]}}", "known: eighth, sixteenth"),
        (FAST + "attention: {sites: 3}}", "sites' is 3; expected a list, as in [A, B]"),
        (FAST + "attention: {nme: efficient}}", "fields: name, sites, options"),
        (FAST + "attention: efficient}", "--network.attention.name NAME"),
        (FAST + "attention: {options: {head: 3}}}", "known: heads, key_channels, temperature"),
        (FAST + "max_disparity: 1.5}", "'network.max_disparity' is 1.5; expected a whole number"),
        ("data: {root: 5}", "'data.root' is 5; expected a string (see 'stereo train -"),
        ("data: {name: kitti2012, root: nowhere}", "nowhere: no such folder; the root is"),
        ("data: {synthetic: {height: a}}", "'data.synthetic.height' is a; expected a whole"),
        ("data: {skip_damaged: maybe}", "'data.skip_damaged' is maybe; expected true or false"),
        ("network: null", "'network' is null; it has fields, such as 'network.name'"),
        ("optimizer: {learning_rate: nan}", "'optimizer.learning_rate' is nan; expected a number"),
        ("optimizer: {clip_norm: a}", "'optimizer.clip_norm' is a; expected a number"),
        ("trainer: {device: tpu}", "unknown device 'tpu'; known: auto, cpu, cuda, cuda:N, mps"),
        (FAST + "attention: {name: null}}", "'name' is null"),
        (FAST + "mean: null}", "'network.mean' is null"),
        (FAST + "bogus: 1}", "network.bogus"),
        ("trainer: null", "'trainer' is null"),
        ("trainer: {max_steps: null}", "'trainer.max_steps' is null"),
        ("data: {validation: 3}", "'data.validation' is '3'"),
        ("optimizer: {learning_rate: .inf}", "learning rate inf"),
        ("loss: {weights: [a]}", "loss.weights"),
        ("weights: [1]", "'weights' is [1]"),
        ("a: b: c", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- network", "YAML file of sections"),
        ("", "YAML file of sections"),
        (b"\xff\xfe\x00", "YAML file of sections"),
        (b"# " + b"a" * 2**19, "that a recipe may have"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:60],
)
def test_an_impossible_recipe_is_one_line(stereo, tmp_path, recipe, words):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(recipe if isinstance(recipe, bytes) else recipe.encode())
    network = () if b"network" in path.read_bytes() else ("--network.name", "ea_stereo_fast")
    result = stereo("train", "--config", path, *network, "--output", tmp_path / "run")
    status = 1 if "nowhere" in words else 2
    assert (result.status, len(result.errors)) == (status, 1), result.errors
    assert words in result.errors[0]
    assert "--root" not in result.errors[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["ea_stereo_fastt", "sgbm", "", "nowhere/run"])
def test_unknown_weights_list_the_bundled_ones(stereo, tmp_path, given):
    options = ("--config", "quickstart", "--weights", given, "--output", tmp_path / "run")
    result = stereo("train", *options)
    assert (result.status, len(result.errors)) == (2, 1), result.errors
    assert f"unknown weights '{given}'; known: a .safetensors or" in result.errors[0]
    assert "ea_stereo_fast" in result.errors[0]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("name", "efficent", ATTENTION_NAMES),
        ("sites", "[eigth]", "known: eighth, quarter, sixteenth"),
        ("site", "eighth", "fields: name, sites, options"),
    ],
)
def test_a_misspelt_attention_on_the_command_line_is_one_line(
    stereo, tmp_path, option, value, words
):
    given = (f"--network.attention.{option}", value, "--output", tmp_path / "run")
    result = stereo("train", "--config", "quickstart", *given)
    assert (result.status, len(result.errors)) == (2, 1), result.errors
    assert words in result.errors[0]


def test_help_of_train_names_the_attentions_and_needs_no_pytorch():
    code = """
import contextlib, io, sys
from stereo.commands.cli import run
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    run(["train", "--help"])
heavy = {"torch", "torchvision", "accelerate", "cv2"} & set(sys.modules)
assert not heavy, heavy
print(" ".join(said.getvalue().split()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words in ("--network.attention.name (aft_conv,", "window)", "--network.attention.sites"):
        assert words in done.stdout


def test_unknown_recipes_list_the_shipped_ones():
    with pytest.raises(UsageError, match="quickstart"):
        recipe_path("nothing")


def test_fine_tuning_without_its_weights_is_refused(stereo, tmp_path):
    result = stereo("train", "--config", "kitti_finetune", "--output", tmp_path / "out")
    assert result.status == 1
    assert result.errors == ["stereo train: error: psmnet.safetensors: no such file"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_recipe_loads_and_takes_a_step(here, path, tmp_path):
    options = ("--data.validation.name", "sceneflow", "--data.validation.split", "test")
    # The network that ships searches 192 px, and its weights with it.
    options += ("--network.max_disparity", 192) if path.stem == "finetune" else ()
    if path.stem == "kitti_finetune":
        config = NetworkConfig("psmnet", 32, "half_pixel", "zeros")
        weights = Checkpoint(config, build_network(config).state_dict())
        save_checkpoint(tmp_path / "psmnet.safetensors", weights)
        options += ("--weights", tmp_path / "psmnet.safetensors")
    output = here(tmp_path / "run", "--trainer.max_steps", 1, *options, config=path.stem)
    assert "stopped at step 1 of 1" in output
    head = path.read_text().splitlines()
    assert any(f" --config {path.stem} " in line for line in head[:8])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--seed", "-1"),
        ("--data.scenes", "0"),
        ("--data.validation.limit", "-1"),
        ("--augmentation.crop", "[33,49]"),
        ("--optimizer.betas", "[2,3]"),
        ("--optimizer.weight_decay", "-1"),
        ("--optimizer.milestones", "[0.5,2]"),
        ("--loss.weights", "[]"),
        ("--trainer.max_step", "3"),  # no abbreviations: a typo is no other option
    ],
)
def test_impossible_values_are_refused_before_any_work(stereo, tmp_path, wrong):
    result = stereo("train", "--config", "quickstart", "--output", tmp_path / "run", *wrong)
    assert result.status == 2
    assert len(result.errors) == 1
    assert wrong[0].split(".")[-1].replace("_", " ").strip("-").split()[-1] in result.errors[0]
    assert not (tmp_path / "run").exists()


def test_weights_with_other_conventions_trigger_a_warning(tmp_path, capsys):
    config = NetworkConfig("psmnet_basic", 48, upsampling="half_pixel", padding="zeros")
    weights = dict(build_network(config).state_dict())
    save_checkpoint(tmp_path / "it.safetensors", Checkpoint(config, weights))
    recipe = Recipe(network=NetworkConfig("psmnet_basic", 48))
    prepare(recipe, weights=str(tmp_path / "it.safetensors"))
    assert "--network.upsampling half_pixel --network.padding zeros" in capsys.readouterr().err
    prepare(dataclasses.replace(recipe, network=config), weights=str(tmp_path / "it.safetensors"))
    assert not capsys.readouterr().err


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_whole_scenes_are_held_out_by_their_names(share):
    names = [
        f"TRAIN/{letter}/{n:04d}/{f:04d}" for letter in "AB" for n in range(50) for f in (6, 7)
    ]
    held = hold_out(names, share)
    assert len(held) == share * len(names)
    assert held == hold_out(names[::-1], share)
    scenes = {name.rpartition("/")[0] for name in held}
    assert held == {name for name in names if name.rpartition("/")[0] in scenes}


def test_one_of_few_scenes_is_held_out_whole():
    names = [f"{scene}/{frame:03d}" for scene in ("forwards", "backwards") for frame in range(40)]
    held = hold_out(names, 0.1)
    assert len(held) == 40
    assert len({name.partition("/")[0] for name in held}) == 1


@pytest.mark.parametrize("large", ["indoor", "outdoor"])
def test_a_share_is_of_the_pairs_not_of_the_scenes(large):
    sizes = {"indoor": 10, "outdoor": 10, large: 1000}
    names = [f"{scene}/{n:04d}" for scene, size in sizes.items() for n in range(size)]
    held = hold_out(names, 0.1)
    assert len(held) == 10
    assert not any(name.startswith(large) for name in held)


def test_a_place_seen_in_many_pairs_counts_as_many():
    names = ["street"] * 900 + [f"{scene:02d}/{n}" for scene in range(10) for n in range(10)]
    held = hold_out(names, 0.1)
    assert "street" not in held
    assert len(held) == 90


@pytest.mark.parametrize(("count", "held"), [(2, 1), (10, 1), (30, 3), (95, 10)])
def test_the_last_frames_are_held_out_if_there_are_no_scenes(count, held):
    names = [f"{n:04d}" for n in range(count)]
    assert hold_out(names, 0.1) == set(names[-held:])
    with pytest.raises(UsageError, match="too few to hold one out"):
        hold_out(names[:1], 0.1)


def test_a_limit_spreads_over_the_whole_list():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread("ab", 5) == ["a", "b"]


def test_by_default_training_pairs_are_held_out(tiny, capsys):
    root = str(tiny())
    for validation, held in (
        (ValidationConfig(), ["2"]),
        (ValidationConfig(share=0.6), ["1", "2"]),
    ):
        run = prepare(Recipe(data=DataConfig("manifest", root, validation=validation)))
        assert [pair.name for pair in run.validation_set] == held
        assert len(run.training_set) == 3 - len(held)
    assert not capsys.readouterr().err


def test_frames_of_a_scene_in_another_light_are_held_out_with_it(tmp_path, capsys):
    write_tree(tmp_path, "vkitti2", [f"{n:05d}" for n in range(5)])
    for weather in ("rain", "sunset"):
        shutil.copytree(tmp_path / "Scene01/fog", tmp_path / "Scene01" / weather)
    shutil.copytree(tmp_path / "Scene01", tmp_path / "Scene02")
    for exposure in "012":
        for name in ("Aloe", "Baby1"):
            for view in ("view1", "view5"):
                image(tmp_path / f"m/{name}/Illum1/Exp{exposure}/{view}.png")
            shutil.copy(
                next((tmp_path / "Scene02").rglob("*.png")), tmp_path / f"m/{name}/disp1.png"
            )
    data = (DataConfig("vkitti2", str(tmp_path)), DataConfig("middlebury2006", f"{tmp_path}/m"))
    for each, light, held, trained in zip(data, (1, slice(1, 3)), (15, 3), (15, 3), strict=True):
        run = prepare(Recipe(data=each))
        seen = [pair.name.split("/") for pair in run.training_set.source.files]
        others = [pair.name.split("/") for pair in run.validation_set]
        assert (len(others), len(seen)) == (held, trained)
        for name in (*seen, *others):
            del name[light]
        assert all(name not in seen for name in others)
    assert "trained on too" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tree", "folder", "twins", "place"),
    [
        ("monkaa", "family_x2", ["lonetree_x2", "lonetree_winter_x2"], r"/([a-z]+)_"),
        ("sintel", "alley_1", ["cave_2", "cave_4"], r"^([a-z]+)_"),
        ("tartanair", "office/Easy/P000", ["seaside/Easy/P001", "seaside/Hard/P002"], r"^(\w+)/"),
        ("fallingthings", "cup/kitchen_0", ["cup/temple_0", "can/temple_0"], r"/(\w+)/\d+$"),
        ("eth3d", None, ["terrains_1l", "terrains_1s", "terrains_2l"], r"^([a-z]+)_"),
    ],
)
def test_frames_of_one_place_are_held_out_together(tmp_path, tree, folder, twins, place):
    if folder is None:
        write_tree(tmp_path, tree, ["forest_1s", "pipes_1l", *twins])
    else:
        write_tree(tmp_path, tree, [f"{n:04d}" for n in range(4)])
        for part in [path for path in tmp_path.glob(f"**/{folder}") if path.is_dir()]:
            for twin in twins:
                target = str(part).removesuffix(folder) + twin
                shutil.copytree(part, target)
    for share in (0.1, 0.4):
        data = DataConfig(tree, str(tmp_path), validation=ValidationConfig(share=share))
        run = prepare(Recipe(data=data))
        seen, others = (
            {re.search(place, pair.name)[1] for pair in pairs}
            for pairs in (run.training_set.source.files, run.validation_set)
        )
        assert seen
        assert others
        assert not seen & others


def test_driving_is_one_place_of_which_nothing_is_held_out(tmp_path):
    write_tree(tmp_path, "driving", [f"{n:04d}" for n in range(4)])
    with pytest.raises(UsageError, match=r"show 1 place, .*--data\.validation\.root"):
        prepare(Recipe(data=DataConfig("driving", str(tmp_path))))


@pytest.mark.parametrize(
    ("validation", "names"),
    [
        (ValidationConfig(), ["FlyingThings3D/TRAIN/A/0004/0006"]),
        (ValidationConfig("flyingthings3d"), ["FlyingThings3D/TRAIN/A/0004/0006"]),
        (
            ValidationConfig(root="others"),
            [f"FlyingThings3D/TRAIN/A/{n:04d}/0006" for n in range(5)],
        ),
        (ValidationConfig(split="test"), ["FlyingThings3D/TEST/A/0000/0006"]),
        (ValidationConfig("flyingthings3d", "others", "test"), ["FlyingThings3D/TEST/A/0000/0006"]),
    ],
)
def test_validation_is_on_test_pairs_only_if_asked_for(tmp_path, validation, names):
    for root in (tmp_path, tmp_path / "others"):
        for scene in range(5):
            write_frame(root, "FlyingThings3D", f"TRAIN/A/{scene:04d}", "0006")
        write_frame(root, "FlyingThings3D", "TEST/A/0000", "0006")
    if validation.root:
        validation = dataclasses.replace(validation, root=str(tmp_path / validation.root))
    data = DataConfig("flyingthings3d", str(tmp_path), None, "clean", validation=validation)
    pairs = prepare(Recipe(data=data)).validation_set
    assert [pair.name for pair in pairs] == names
    assert all("frames_cleanpass" in pair.left.parts for pair in pairs)


def test_a_size_of_middlebury_is_chosen_by_its_layout(tmp_path):
    write_tree(tmp_path, "middlebury_v3", ["Piano", "Jadeplant"])
    shutil.copytree(tmp_path / "MiddEval3/trainingQ", tmp_path / "MiddEval3/trainingH")
    data = DataConfig("middlebury_v3", str(tmp_path))
    with pytest.raises(InputError, match="in training with"):
        prepare(Recipe(data=data))
    for other, place in ((None, "trainingQ"), ("H", "trainingH")):
        validation = ValidationConfig(layout=other)
        run = prepare(Recipe(data=dataclasses.replace(data, layout="Q", validation=validation)))
        assert "trainingQ" in run.training_set.source.files[0].left.parts
        assert place in run.validation_set[0].left.parts


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "train"},
        {"render_pass": "clean"},
        {"validation": ValidationConfig(split="test")},
        {"validation": ValidationConfig(render_pass="clean")},
    ],
)
def test_scenes_rendered_on_the_spot_have_no_split_or_pass(wrong):
    with pytest.raises(UsageError, match="rendered on the spot; name a folder"):
        prepare(Recipe(data=DataConfig("synthetic", **wrong)))


def test_pairs_that_are_never_flipped_trigger_a_warning(tiny, capsys):
    data = DataConfig("manifest", str(tiny()))
    prepare(Recipe(data=data, augmentation=AugmentationConfig(flip_probability=0.5)))
    assert "2 of the 2 training pairs have no ground truth of the right" in capsys.readouterr().err


@pytest.mark.parametrize("validation", [ValidationConfig(), ValidationConfig(split="train")])
def test_pairs_with_ground_truth_of_both_views_are_flipped(tmp_path, validation):
    synthesize(tmp_path, SyntheticConfig(height=32, width=64, max_disparity=16), 2)
    recipe = Recipe(
        NetworkConfig("ea_stereo_fast", 32),
        DataConfig("synthetic", str(tmp_path), validation=validation),
        AugmentationConfig(crop=None, flip_probability=1.0),
    )
    training = prepare(recipe).training_set
    truth = training.source.files[0].read(disparity_right=True).disparity_right
    assert np.array_equal(training[0, 0]["disparity"], truth[:, ::-1])


@pytest.mark.parametrize("name", ["manifest", "synthetic"])
def test_every_epoch_brings_other_samples(tiny, name):
    scenes = SyntheticConfig(height=32, width=64, max_disparity=16)
    drawn = name == "manifest"  # at random from pairs that stay
    recipe = Recipe(
        NetworkConfig("ea_stereo_fast", 32),
        DataConfig(name, str(tiny()) if drawn else None, synthetic=scenes),
        AugmentationConfig(crop=(16, 32) if drawn else None),
    )
    training = prepare(recipe).training_set
    first, again, other = (training[epoch, 0]["left"] for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(training[0, 1]["left"], other)  # nor does an epoch repeat most of one


def test_another_seed_brings_other_weights_and_crops(tiny):
    recipe = Recipe(
        NetworkConfig("ea_stereo_fast", 32),
        DataConfig("manifest", str(tiny())),
        AugmentationConfig(crop=(16, 32)),
    )
    first, again, other = (prepare(dataclasses.replace(recipe, seed=n)) for n in (0, 0, 1))
    for found in (
        lambda run: run.training_set[0, 0]["left"],
        lambda run: torch.cat([p.flatten() for p in run.network.parameters()]),
    ):
        assert torch.equal(found(first), found(again))
        assert not torch.equal(found(first), found(other))


@pytest.mark.parametrize("scale", [1, 3])
def test_ground_truth_of_another_scale_triggers_a_warning(tmp_path, capsys, scale):
    root = shutil.copytree(SAMPLES, tmp_path / "samples")
    for path in root.rglob("*.pfm"):
        write_disparity(path, read_disparity(path) / scale)
    recipe = Recipe(
        NetworkConfig("ea_stereo_fast"),
        DataConfig("sceneflow", str(root), "test"),
        AugmentationConfig(crop=(64, 128)),
        trainer=TrainerConfig(max_steps=1, batch_size=1, workers=0),
    )
    train(prepare(recipe, weights="ea_stereo_fast"), tmp_path / "run")
    hint = "ground truth is about 1/3 of the map everywhere"
    assert (hint in capsys.readouterr().err) == (scale == 3)


def test_whole_pairs_of_any_size_are_padded():
    scenes = SyntheticConfig(height=40, width=100, max_disparity=16)
    recipe = Recipe(
        data=DataConfig("synthetic", synthetic=scenes), augmentation=AugmentationConfig(crop=None)
    )
    item = prepare(recipe).training_set[0, 0]
    assert item["left"].shape == (3, 48, 112)
    assert not item["valid"][:8].any()
    assert not item["valid"][:, 100:].any()
    assert item["valid"][8:, :100].all()


@pytest.mark.parametrize("recipe", ["psmnet_sceneflow", "ea_psmnet_sceneflow", "modern_sceneflow"])
def test_scene_flow_recipes_do_not_use_its_test_pairs(recipe, stereo, tmp_path, monkeypatch):
    for scene in range(60):
        write_frame(tmp_path, "FlyingThings3D", f"TRAIN/A/{scene:04d}", "0006")
    write_frame(tmp_path, "FlyingThings3D", "TEST/A/0000", "0006")
    runs = []
    monkeypatch.setattr(loop, "train", lambda run, *_, **__: runs.append(run))
    data = ("--data.root", tmp_path, "--output", tmp_path / "out")
    result = stereo("train", "--config", recipe, *data)
    assert result.status == 1
    assert "--data.name flyingthings3d" in result.errors[0]  # the one option that it takes
    alone = stereo("train", "--config", recipe, *data, "--data.name", "flyingthings3d")
    assert (alone.status, alone.errors) == (0, [])
    write_frame(tmp_path, "Monkaa", "a_rain_of_stones_x2", "0000")
    write_frame(tmp_path, "Driving", "15mm_focallength/scene_forwards/fast", "0001")
    assert stereo("train", "--config", recipe, *data).status == 0
    for run, count in zip(runs, (59, 61), strict=True):
        (held,) = run.validation_set
        names = [pair.name for pair in run.training_set.source.files]
        assert len(names) == count
        assert held.name not in names
        assert "FlyingThings3D/TRAIN" in held.name
        assert not any("TEST" in name for name in names)


def test_weights_are_named_as_models_are(tmp_path):
    network = NetworkConfig("ea_stereo_fast")
    run = prepare(Recipe(network=network), weights="ea_stereo_fast")
    shipped = load_checkpoint(bundled_weights("ea_stereo_fast")).weights
    assert all(torch.equal(run.network.state_dict()[n], t) for n, t in shipped.items())
    assert run.facts["weights"] == "ea_stereo_fast"
    with pytest.raises(UsageError, match="without weights; known: ea_stereo_fast, ea_stereo"):
        prepare(Recipe(network=NetworkConfig("psmnet")), weights="psmnet")
    with pytest.raises(InputError, match="nothing"):
        prepare(Recipe(network=network), weights=str(tmp_path / "nothing.safetensors"))


@pytest.mark.parametrize(
    "attention",
    [
        AttentionConfig("none"),
        AttentionConfig("performer"),
        AttentionConfig("efficient", options={"heads": 8}),
        AttentionConfig("efficient", ("eighth",)),
    ],
)
def test_weights_start_a_network_with_other_attention(capsys, attention):
    network = NetworkConfig("ea_stereo_fast", 32, attention=attention)
    begun = prepare(Recipe(network=network), weights="ea_stereo_fast").network.eval()
    assert "other attention than the recipe" in capsys.readouterr().err
    plain = NetworkConfig("ea_stereo_fast", 32, attention=AttentionConfig("none"))
    without = prepare(Recipe(network=plain), weights="ea_stereo_fast").network.eval()
    views = torch.randn(2, 1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.allclose(begun(*views), without(*views), atol=1e-4)


def test_attention_of_equal_options_is_the_same_attention(tmp_path, capsys):
    def config(**options):
        return NetworkConfig("ea_psmnet", 32, attention=AttentionConfig("window", options=options))

    path = tmp_path / "it.safetensors"
    save_checkpoint(
        path,
        Checkpoint(config(window=(2, 4, 4)), build_network(config(window=(2, 4, 4))).state_dict()),
    )
    assert load_checkpoint(path).config == config(window=(2, 4, 4))
    prepare(Recipe(network=config(window=[2, 4, 4], heads=1)), weights=str(path))
    assert "other attention" not in capsys.readouterr().err
    prepare(Recipe(network=config(window=(2, 2, 4))), weights=str(path))
    assert "other attention" in capsys.readouterr().err


def test_a_checkpoint_names_no_folder_of_the_machine(tiny, tmp_path):
    image(tmp_path / "pictures" / "one.png")
    scenes = SyntheticConfig(textures=str(tmp_path / "pictures"))
    network = NetworkConfig("ea_stereo_fast", 32)
    for data in (DataConfig("manifest", str(tiny())), DataConfig(synthetic=scenes)):
        facts = prepare(Recipe(network=network, data=data)).facts
        assert str(tmp_path) not in json.dumps(facts)
    assert facts["recipe"]["data"]["synthetic"]["textures"] == "pictures"


def test_a_checkpoint_tells_the_settings_that_were_used(tiny, tmp_path):
    scenes = SyntheticConfig(height=64, width=96, max_disparity=16)
    network = NetworkConfig("ea_stereo_fast", 32)
    on_disk = DataConfig("manifest", str(tiny()), synthetic=scenes)
    rendered = ValidationConfig("synthetic", limit=1)
    for data, used in (
        (on_disk, set()),
        (dataclasses.replace(on_disk, validation=rendered), {"synthetic"}),
        (DataConfig(synthetic=scenes), {"synthetic", "scenes"}),
    ):
        facts = prepare(Recipe(network=network, data=data)).facts
        assert {"synthetic", "scenes"} & facts["recipe"]["data"].keys() == used


@pytest.mark.parametrize("render_pass", ["final", "clean"])
def test_validation_on_the_training_pairs_triggers_a_warning(render_pass, capsys):
    validation = ValidationConfig(split="test", render_pass=render_pass)
    data = DataConfig("sceneflow", str(SAMPLES), "test", "final", validation=validation)
    prepare(Recipe(network=NetworkConfig("psmnet_basic", 48), data=data))
    assert "3 of the 3 validation pairs are trained on too" in capsys.readouterr().err


def test_equal_names_in_other_folders_are_other_pairs(tiny, capsys):
    validation = ValidationConfig(root=str(tiny(name="others")))
    prepare(Recipe(data=DataConfig("manifest", str(tiny()), validation=validation)))
    assert "trained on too" not in capsys.readouterr().err


def test_validation_is_on_the_pairs_asked_for(tmp_path):
    """The test split of rendered scenes on disk, not others rendered on the spot."""
    for seed, split in enumerate(("train", "test")):
        options = SyntheticConfig(height=32, width=64, max_disparity=16, seed=seed)
        synthesize(tmp_path, options, 2, split=split)
    data = DataConfig("synthetic", str(tmp_path), validation=ValidationConfig(split="test"))
    run = prepare(Recipe(data=data))
    assert all(tmp_path in pair.left.parents for pair in run.validation_set)
    assert run.plan.endswith(" trained on 2 pairs of synthetic; validated on 2 of synthetic")


@pytest.mark.parametrize("render_pass", [None, "clean"])
def test_held_out_pairs_are_read_in_the_pass_asked_for(render_pass):
    validation = ValidationConfig(share=0.4, render_pass=render_pass)
    data = DataConfig("sceneflow", str(SAMPLES), "test", "final", validation=validation)
    (pair,) = prepare(Recipe(data=data)).validation_set
    assert f"frames_{render_pass or 'final'}pass" in pair.left.parts


def test_a_share_is_held_out_even_where_there_is_a_validation_split(tmp_path):
    write_tree(tmp_path, "kitti2015", [f"{n:06d}" for n in (0, 1, 2, 3)])
    for validation, names in (
        (ValidationConfig(), ["000001_10", "000003_10"]),
        (ValidationConfig(share=0.3), ["000002_10"]),
    ):
        data = DataConfig("kitti2015", str(tmp_path), validation=validation)
        pairs = prepare(Recipe(data=data)).validation_set
        assert [pair.name for pair in pairs] == names

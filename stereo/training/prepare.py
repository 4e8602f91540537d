"""From a recipe to a run: network, training pairs, validation pairs."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from stereo.attention import ATTENTIONS
from stereo.data.augmentation.training_pair import TrainingPair
from stereo.data.sets.datasets import get_description, open_dataset
from stereo.data.sets.fingerprints import fingerprints, packed
from stereo.data.sets.layouts import SYNTHETIC
from stereo.data.sets.sample import Readable, SampleFiles
from stereo.data.synthetic import SyntheticConfig, SyntheticScenes
from stereo.data.synthetic.samples import RenderedSample, held_out
from stereo.errors import InputError, UsageError, unknown_name
from stereo.models import NETWORK_NAMES, AttentionConfig, NetworkConfig, build_network
from stereo.models.build import StereoNetwork, options_of
from stereo.models.checkpoint import Checkpoint, file_sha256, load_checkpoint, load_weights
from stereo.models.convert import convert_psmnet
from stereo.system.bundled import bundled_weights
from stereo.system.console import warn
from stereo.system.machine import commit
from stereo.training.data import DiskPairs, PairSource, TrainingSet
from stereo.training.held_out import hold_out, spread
from stereo.training.recipe import DataConfig, Recipe, ValidationConfig
from stereo.training.run import TrainingRun
from stereo.version import __version__

DEFAULT_SHARE = 0.1


class RenderedPairs:
    """Rendered scenes as a source of training pairs; every epoch brings new ones."""

    def __init__(self, config: SyntheticConfig, count: int) -> None:
        self.scenes = SyntheticScenes(config)
        self.count = count

    def __len__(self) -> int:
        return self.count

    def pair(self, epoch: int, index: int) -> TrainingPair:
        """Render one scene."""
        rendered = self.scenes.render(epoch * self.count + index)
        return TrainingPair.from_sample(rendered.sample())


def prepare(recipe: Recipe, *, weights: str | None = None) -> TrainingRun:
    """Build a run from a recipe.

    Args:
        recipe: the recipe.
        weights: what to start from: a network's name for the weights that ship, a checkpoint of
            ours, or a published PSMNet ``.tar``. They may have other attention than the recipe, or
            none; the recipe's then begins as the identity.

    Raises:
        StereoError: data or weights that cannot be used.
    """
    config = recipe.network
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(recipe.seed)
        network = build_network(config)
    seen: frozenset[str] = frozenset()
    if weights is not None:
        if weights.endswith(".tar"):
            loaded = convert_psmnet(weights, align_corners=config.upsampling == "align_corners")
        else:
            loaded = load_checkpoint(weights_file(weights))
        fitting = _without_other_attention(loaded, network, config, weights)
        try:
            load_weights(network, fitting, weights, allow_new_attention=True)
        except InputError as error:
            if loaded.config.name == config.name:
                raise
            raise InputError(
                f"{error}; the file holds a network '{loaded.config.name}', --network.name is "
                f"'{config.name}'"
            ) from error
        _compare_conventions(loaded.config, config, weights)
        seen = loaded.trained_on
    facts: dict[str, Any] = {
        "recipe": _without_folders(_in_use(recipe)),
        "weights": None if weights is None else Path(weights).name,
        "weights_sha256": None if weights is None else file_sha256(weights_file(weights)),
        "version": __version__,
        "commit": commit(),
    }
    training, validation = _pairs(recipe)
    facts["validation_sha256"] = _digest(validation)
    if isinstance(training, DiskPairs):
        own = fingerprints(training.files)
        facts["training_sha256"] = hashlib.sha256(packed(own).encode()).hexdigest()
        seen |= own
    facts["trained_on"] = packed(seen)
    _warn_of_overlap(training, validation)
    if recipe.augmentation.flip_probability > 0:
        _warn_of_no_flip(training)
    return TrainingRun(
        network=network,
        network_config=config,
        training_set=TrainingSet(
            training,
            recipe.augmentation,
            recipe.seed,
            config.mean,
            config.std,
            skip_damaged=recipe.data.skip_damaged,
        ),
        validation_set=validation,
        optimizer=recipe.optimizer,
        trainer=recipe.trainer,
        loss=recipe.loss,
        seed=recipe.seed,
        facts=facts,
        plan=_plan_in_words(recipe, len(training), validation),
        skip_damaged=recipe.data.skip_damaged,
    )


def _without_other_attention(
    loaded: Checkpoint, network: StereoNetwork, config: NetworkConfig, source: str
) -> dict[str, Tensor]:
    """Return the weights without those of attention that the recipe does not have."""

    def kind(of: NetworkConfig) -> object:
        if of.attention is None or of.attention.name not in ATTENTIONS:
            return None
        options = options_of(ATTENTIONS[of.attention.name]) | of.attention.options
        return AttentionConfig(of.attention.name, options=options)

    other, places = kind(loaded.config) != kind(config), network.state_dict().keys()
    left_out = {
        name for name in loaded.weights if ".attention_" in name and (other or name not in places)
    }
    if left_out:
        warn(
            f"warning: {source} has other attention than the recipe, and its weights are left out; "
            "all else starts from it"
        )
    return {name: tensor for name, tensor in loaded.weights.items() if name not in left_out}


def _plan_in_words(recipe: Recipe, training: int, validation: Sequence[Readable]) -> str:
    data, trainer, crop = recipe.data, recipe.trainer, recipe.augmentation.crop
    size = "whole images" if crop is None else f"crops of {crop[0]}x{crop[1]}"
    name = data.validation.name or data.name
    rendered = " rendered on the spot" if data.root is None else ""
    on_the_spot = " rendered on the spot" if isinstance(validation[0], RenderedSample) else ""
    return (
        f"{recipe.network.name}, {trainer.max_steps:,} steps of {trainer.batch_size} {size}, "
        f"trained on {training:,} pairs of {data.name}{rendered}; "
        f"validated on {len(validation):,} of {name}{on_the_spot}"
    )


def _compare_conventions(theirs: NetworkConfig, ours: NetworkConfig, source: str) -> None:
    """Warn if weights were trained under other conventions than the recipe's."""
    names = ("upsampling", "padding", "mean", "std")
    apart = [name for name in names if getattr(theirs, name) != getattr(ours, name)]
    if apart:
        kept = " ".join(f"--network.{name} {getattr(theirs, name)}" for name in apart)
        warn(
            f"warning: {source} was trained under other conventions than the recipe's, so that "
            f"its first maps will be worse; keep them with {kept}"
        )


def _warn_of_overlap(training: PairSource, validation: Sequence[Readable]) -> None:
    if isinstance(training, DiskPairs):
        seen = {_identity(pair) for pair in training.files}
        shared = sum(_identity(pair) in seen for pair in validation)
        if shared:
            warn(
                f"warning: {shared} of the {len(validation)} validation pairs are trained on too; "
                "name others with --data.validation.name, .root and .split"
            )


def _warn_of_no_flip(training: PairSource) -> None:
    if isinstance(training, DiskPairs):
        fixed = sum(getattr(pair, "disparity_right", None) is None for pair in training.files)
        if fixed:
            warn(
                f"warning: {fixed} of the {len(training)} training pairs have no ground truth of "
                "the right view and are never flipped (augmentation.flip_probability)"
            )


def _digest(pairs: Sequence[Readable]) -> str:
    """Return a hash that tells lists of pairs apart, from their names and the sizes of files."""
    facts: list[Any] = []
    for pair in pairs:
        facts.append(pair.name)
        if isinstance(pair, SampleFiles):
            files = (pair.left, pair.right, pair.disparity)
            facts.append([path and path.stat().st_size for path in files])
        elif isinstance(pair, RenderedSample):
            facts.append(_without_folders(dataclasses.asdict(pair.scenes.config)))
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _identity(pair: Readable) -> object:
    """Return what the passes of a pair share; names recur in other folders."""
    if isinstance(pair, SampleFiles):
        return (pair.disparity or pair.left).resolve()
    return pair.name


def _in_use(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's fields without those that its pairs leave unused."""
    fields, data = dataclasses.asdict(recipe), recipe.data
    if data.root is not None:  # instead of scenes rendered on the spot
        del fields["data"]["scenes"]
        validation = data.validation
        if not (validation.name == SYNTHETIC != data.name and validation.root is None):
            del fields["data"]["synthetic"]
    return fields


def _without_folders(facts: dict[str, Any]) -> dict[str, Any]:
    """Cut paths to their last name: a checkpoint travels to other machines."""
    kept = {}
    for key, value in facts.items():
        if isinstance(value, dict):
            value = _without_folders(value)
        elif key in ("root", "textures", "meshes", "unused") and value is not None:
            value = Path(value).name
        kept[key] = value
    return kept


def _pairs(recipe: Recipe) -> tuple[PairSource, Sequence[Readable]]:
    """Return the training and validation pairs."""
    data, right = recipe.data, recipe.augmentation.flip_probability > 0
    if data.root is None:
        if data.name != SYNTHETIC:
            raise UsageError(f"--data.root is missing: it names the folder of '{data.name}'")
        _refuse_choices_on_the_spot("data", data, ("split", "render_pass", "layout", "unused"))
        return RenderedPairs(data.synthetic, data.scenes), _validation(data)
    chosen = data.validation
    found = _training_pairs(data)
    name = chosen.name or data.name
    others = _split_if_there(name, "val") or name == SYNTHETIC != data.name
    if chosen.root or chosen.split or (others and not chosen.share):
        return DiskPairs(found, right=right), _validation(data)
    candidates = found
    if name != data.name:
        part = open_dataset(
            name,
            data.root,
            split=data.split or _split_if_there(name, "train"),
            render_pass=data.render_pass,
            layout=chosen.layout,
        )
        known = {pair.name for pair in part.samples}
        candidates = [pair for pair in found if pair.name in known]
    held = hold_out([_subject(pair) for pair in candidates], chosen.share or DEFAULT_SHARE)
    rest = [pair for pair in found if _subject(pair) not in held]
    as_chosen = dataclasses.replace(
        data,
        render_pass=chosen.render_pass or data.render_pass,
        layout=chosen.layout or data.layout,
    )
    if as_chosen != data:
        found = _training_pairs(as_chosen)
    validation = [pair for pair in found if _subject(pair) in held]
    return DiskPairs(rest, right=right), spread(validation, chosen.limit)


def _subject(pair: SampleFiles) -> str:
    return pair.subject or pair.name


def _training_pairs(data: DataConfig) -> Sequence[SampleFiles]:
    found = open_dataset(
        data.name,
        data.root,
        split=data.split or _split_if_there(data.name, "train"),
        render_pass=data.render_pass,
        layout=data.layout,
        unused=data.unused,
    )
    return cast("Sequence[SampleFiles]", found.samples)


def _validation(data: DataConfig) -> Sequence[Readable]:
    """Return the pairs of a separate validation data set."""
    chosen = data.validation
    name = chosen.name or data.name
    root = chosen.root or data.root
    if name == SYNTHETIC and chosen.root is None and (data.root is None or chosen.split is None):
        _refuse_choices_on_the_spot("data.validation", chosen, ("split", "render_pass", "layout"))
        return held_out(data.synthetic, chosen.limit)
    if root is None:
        raise UsageError(f"--data.validation.root is missing: it names the folder of '{name}'")
    passes = get_description(name).passes
    found = open_dataset(
        name,
        root,
        # Never `test`, the default of some, unless it is asked for.
        split=chosen.split or _split_if_there(name, "val") or _split_if_there(name, "train"),
        render_pass=chosen.render_pass or (data.render_pass if passes else None),
        layout=chosen.layout or (data.layout if name == data.name else None),
    )
    return spread(found.samples, chosen.limit)


def _refuse_choices_on_the_spot(
    section: str, config: DataConfig | ValidationConfig, names: Sequence[str]
) -> None:
    for name in names:
        if getattr(config, name) is not None:
            raise UsageError(
                f"{section}.{name} chooses among pairs on disk, but these scenes are rendered on "
                f"the spot; name a folder with {section}.root, or leave it out"
            )


def _split_if_there(name: str, split: str) -> str | None:
    """Return the split if the data set has it, else None."""
    return split if split in get_description(name).splits else None


def weights_file(weights: str, *others: str) -> Path:
    """Return the bundled weights of a network's name, or the path given.

    Raises:
        UsageError: neither; the message names ``others`` too, which the caller knows.
    """
    shipped = [*others] + [name for name in NETWORK_NAMES if bundled_weights(name) is not None]
    if weights in NETWORK_NAMES:
        path = bundled_weights(weights)
        if path is None:
            known = ", ".join(shipped)
            raise UsageError(f"'{weights}' ships without weights; known: {known}, or a file")
        return path
    if not weights or not (weights.endswith(".safetensors") or Path(weights).exists()):
        raise unknown_name("weights", weights, [*shipped, "a .safetensors or PSMNet's .tar file"])
    return Path(weights)

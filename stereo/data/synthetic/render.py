"""Scenes to pairs: compose, paint, trace, shade, expose."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from stereo.data.sets.sample import Sample
from stereo.data.synthetic.atlas import Atlas, make_atlas
from stereo.data.synthetic.config import SyntheticConfig
from stereo.data.synthetic.meshes import Triangles, find_meshes
from stereo.data.synthetic.photographs import cut, find_photographs
from stereo.data.synthetic.rng import SceneRng
from stereo.data.synthetic.scene import Scene, compose
from stereo.data.synthetic.sensor import draw_sensors, expose, ideal, metered, shifted_truth
from stereo.data.synthetic.sequences import at_frame
from stereo.data.synthetic.shade import picture
from stereo.data.synthetic.textures import paint
from stereo.data.synthetic.trace import seen_by_both, trace

# Each part of a sample has its own stream of chance: a change to one leaves the others alone.
_SCENE, _PAINT, _CAMERA, _SEQUENCE = range(4)


@dataclass(frozen=True, eq=False)
class RenderedPair:
    """A rendered pair with all that is known about it.

    Attributes:
        name: ``synthetic/SEED/INDEX``.
        left: (H, W, 3) uint8 RGB, as a camera shows it.
        right: (H, W, 3) uint8 RGB.
        clean_left: (H, W, 3) uint8 RGB, without the cameras' faults.
        clean_right: (H, W, 3) uint8 RGB.
        disparity: (H, W) float32, pixels, at the centres of the left view's pixels.
        right_disparity: (H, W) float32, pixels, positive, of ``right`` with its vertical offset.
        nonoccluded: (H, W) bool, true where the right view shows the left pixel's point too.
        right_nonoccluded: (H, W) bool, the same of the right view's pixels.
    """

    name: str
    left: np.ndarray
    right: np.ndarray
    clean_left: np.ndarray
    clean_right: np.ndarray
    disparity: np.ndarray
    right_disparity: np.ndarray
    nonoccluded: np.ndarray
    right_nonoccluded: np.ndarray

    def sample(self) -> Sample:
        """Return the pair as any data set gives one; every pixel has ground truth."""
        valid = np.ones(self.disparity.shape, dtype=bool)
        return Sample(
            self.name,
            self.left,
            self.right,
            self.disparity,
            valid,
            self.nonoccluded,
            self.right_disparity,
            valid,
        )


class SyntheticScenes:
    """An endless set of rendered pairs: pair i depends on the configuration and i alone.

    Attributes:
        config: what was asked for.
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        self._photographs = find_photographs(config.textures) if config.textures else []
        self._meshes = find_meshes(config.meshes) if config.meshes else []

    def name(self, index: int) -> str:
        """Return what tells a pair from all others of this size and look."""
        return f"synthetic/{self.config.seed}/{index}"

    def render(self, index: int) -> RenderedPair:
        """Return pair ``index``, 0 or more."""
        return RenderedPair(self.name(index), *(t.numpy() for t in self._render(index)))

    def compose(self, index: int) -> Scene:
        """Return the scene of an index, the geometry and looks without pictures."""
        rng = SceneRng(self.config.seed, index, _SCENE)
        return compose(self.config, rng, photographs=bool(self._photographs), meshes=self._meshes)

    @torch.no_grad()
    def _render(self, index: int) -> tuple[Tensor, ...]:
        config = self.config
        index, frame = divmod(index, config.frames)
        scene, place = self.compose(index), 0.0
        if config.frames > 1:
            rng = SceneRng(config.seed, index, _SEQUENCE)
            scene, place = at_frame(scene, rng, frame, config.frames)
        places = (place, place + 1.0)
        atlas = self._paint(scene, SceneRng(config.seed, index, _PAINT))
        surfaces = [layer.surface for layer in scene.layers]
        limits = (config.min_disparity, float(config.max_disparity))
        shape, noise = (config.height, config.width), atlas.noise
        solid = Triangles(scene.meshes, scene.view, scene.lamp) if scene.meshes else None
        hits = [
            trace(surfaces, limits, shape, noise, place=each, triangles=solid) for each in places
        ]
        seen = [
            seen_by_both(
                *(surfaces, limits, hit, noise),
                place=places[k],
                other=places[1 - k],
                triangles=solid,
            )
            for k, hit in enumerate(hits)
        ]
        light = tuple(
            picture(scene, atlas, hit, place=each, triangles=solid)
            for hit, each in zip(hits, places, strict=True)
        )
        rng = SceneRng(config.seed, index, _CAMERA)
        light = metered(light[0], light[1], SceneRng(rng.word()))
        cameras = draw_sensors(config, rng)
        if frame:
            rng = SceneRng(config.seed, index, _CAMERA, frame)
            one, two = (replace(each, noise_seed=rng.word()) for each in cameras)
            cameras = one, two
        shown = [expose(view, camera) for view, camera in zip(light, cameras, strict=True)]
        right_disparity, right_seen = shifted_truth(hits[1].disparity, seen[1], cameras[1])
        return (
            *shown,
            *(ideal(view) for view in light),
            *(hits[0].disparity, right_disparity),
            *(seen[0], right_seen),
        )

    def _paint(self, scene: Scene, rng: SceneRng) -> Atlas:
        looks = [*(layer.look for layer in scene.layers), *scene.mesh_looks]
        used = {look.texture for look in looks}
        used |= {int(look.mirror[0]) for look in looks if look.mirror[1]}
        pictures = []
        for number, kind in enumerate(scene.paints):
            own = SceneRng(rng.word())
            if number not in used:
                pictures.append(torch.zeros(3, 2, 2))
            elif kind.photograph:
                pictures.append(cut(own, own.pick(self._photographs), kind.size))
            else:
                pictures.append(paint(own, kind.size, repeated=kind.repeated))
        return make_atlas(pictures, rng)

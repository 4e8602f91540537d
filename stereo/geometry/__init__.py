"""From pixels to metres: calibrations, rectification, checks of a pair, depth and points."""

from stereo.geometry.calibration import Calibration
from stereo.geometry.parameters import Camera

__all__ = ["Calibration", "Camera"]

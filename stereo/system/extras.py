"""Packages of the extras in ``pyproject.toml``, which the core does not need."""

import importlib
from types import ModuleType

from stereo.errors import StereoError


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module that an extra installs.

    Raises:
        StereoError: it is not installed; the message has the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise StereoError(
            f"{purpose} needs the package {module} ({error}): in a clone of this project, run pip "
            f"install -e '.[{extra}]'"
        ) from error

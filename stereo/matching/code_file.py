"""Models in a user's Python file, ``FILE.py:NAME``: loading one runs that file's code."""

import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from stereo.errors import InputError, StereoError, UsageError
from stereo.matching.matcher import Matcher
from stereo.matching.wrap import error_line, wrap
from stereo.models.checkpoint import file_sha256


@functools.cache
def load_code(model: str | Path) -> Matcher:
    """Run a Python file and return the model that it defines under a name.

    The name may be that of a function of two views, as ``stereo.wrap`` takes it, of a model that
    ``stereo.wrap`` or ``stereo.wrap_network`` made, or of a function or class that can be called
    without arguments and gives either. The file's folder is put on the path of imports, as
    ``python FILE.py`` does. A process runs a file once.

    Args:
        model: ``FILE.py:NAME``.

    Raises:
        InputError: the file cannot be read, or its code fails.
        UsageError: there is no such name in it, or it is none of these.
    """
    path, name = _parts(model)
    found = _attribute(path, name)
    if not isinstance(found, Matcher) and callable(found) and not _parameters(found):
        found = _running(path, f"{name}()", found)
    if isinstance(found, nn.Module):
        raise UsageError(f"{path}: {name} is a torch module; give it to stereo.wrap_network there")
    if not isinstance(found, Matcher):
        if not callable(found):
            raise UsageError(f"{path}: {name} is {type(found).__name__}, no function of two views")
        found = wrap(found, name=re.sub(r"[^\w.+-]", "_", f"{path.stem}.{name}"))
    facts = found.description | {"code": f"sha256:{file_sha256(path)}"}
    return Matcher(found.engine, found.network, facts, found.confidence)


def _parts(model: str | Path) -> tuple[Path, str]:
    path, _, name = str(model).rpartition(":")
    return Path(path), name


def _attribute(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"stereo_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    _running(path, "its code", spec.loader.exec_module, module)
    if not hasattr(module, name):
        known = [
            key
            for key, each in vars(module).items()
            if isinstance(each, Matcher)
            or (getattr(each, "__module__", None) == spec.name and callable(each))
        ]
        raise UsageError(f"{path}: defines no '{name}'; it defines {', '.join(known) or 'nothing'}")
    return getattr(module, name)


def _running(path: Path, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what is a file's; its errors become one line that names the file."""
    try:
        return function(*arguments)
    except StereoError as error:
        raise InputError(f"{path}: {what} failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(f"{path}: {what} failed: {error_line(error)}") from error


def _parameters(function: Any) -> int:
    """Return how many parameters must be given; 2 where that cannot be known."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    variable = any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)
    return 2 if variable else len(positional)

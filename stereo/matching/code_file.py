"""Models in a user's Python file, ``FILE.py:NAME``: loading one runs that file's code."""

import functools
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from stereo.errors import InputError, StereoError, UsageError
from stereo.matching.matcher import Matcher
from stereo.matching.wrap import error_line, wrap
from stereo.models.checkpoint import file_sha256


def load_code(model: str | Path) -> Matcher:
    """Run a Python file and return the model that it defines under a name.

    The name may be that of a function of two views, as ``stereo.wrap`` takes it, of a model that
    ``stereo.wrap`` or ``stereo.wrap_network`` made, or of a function or class that can be called
    without arguments and gives either. The file's folder is put on the path of imports, as
    ``python FILE.py`` does. A process runs a file once. Two files of different folders may import
    modules of one name, each its own; an import within a function finds those of the latest file.

    Args:
        model: ``FILE.py:NAME``.

    Raises:
        InputError: the file cannot be read, or its code fails.
        UsageError: there is no such name in it, or it is none of these.
    """
    path, name = _parts(model)
    return _load(path.resolve(), name)


@functools.cache
def _load(path: Path, name: str) -> Matcher:
    found = _attribute(_run(path), path, name)
    if not isinstance(found, Matcher) and callable(found) and not _parameters(found):
        found = _running(path, f"{name}()", found)
    if isinstance(found, nn.Module):
        raise UsageError(f"{path}: {name} is a torch module; give it to stereo.wrap_network there")
    if not isinstance(found, Matcher):
        if not callable(found):
            raise UsageError(f"{path}: {name} is {type(found).__name__}, no function of two views")
        found = wrap(found, name=re.sub(r"[^\w.+-]", "_", f"{path.stem}.{name}"))
    facts = found.description | {"code": f"sha256:{_code_sha256(path)}"}
    if isinstance(found.network, nn.Module):
        facts["weights"] = f"sha256:{_weights_sha256(found.network)}"
    return found.described(facts)


def _code_sha256(path: Path) -> str:
    """Return the hash of a file, or of it and of what it has imported from its folder."""
    specs = (sys.modules[name].__spec__ for name in sorted(_imported_from(path.parent)))
    files = [Path(spec.origin) for spec in specs if spec is not None and spec.origin]
    hashes = [file_sha256(file) for file in (path, *files) if file.is_file()]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _weights_sha256(network: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        found.update(name.encode())
        if isinstance(tensor, Tensor):
            values = tensor.detach().cpu().contiguous().flatten()
            found.update(values.view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return found.hexdigest()


def _parts(model: str | Path) -> tuple[Path, str]:
    path, _, name = str(model).rpartition(":")
    return Path(path), name


_known: dict[Path, set[str]] = {}  # folders of files that were run, and the modules before it


@functools.cache
def _run(path: Path) -> ModuleType:
    """Run a file as a module."""
    spec = importlib.util.spec_from_file_location(f"stereo_model_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = path.parent
    for other in _known.keys() - {folder}:
        _forget_modules(other)
    _known.setdefault(folder, set(sys.modules))
    sys.path[:] = [str(folder), *(each for each in sys.path if each != str(folder))]
    sys.modules[spec.name] = module
    _running(path, "its code", spec.loader.exec_module, module)
    return module


def _forget_modules(folder: Path) -> None:
    """Let the next import look again for modules that a file's code imported from its folder."""
    for name in _imported_from(folder):
        del sys.modules[name]


def _imported_from(folder: Path) -> list[str]:
    """Return the names of the modules that a file's code imported from its folder."""
    found = []
    for name in sys.modules.keys() - _known[folder]:
        module = sys.modules[name]
        top = name.partition(".")[0]
        spec = getattr(module, "__spec__", None)
        if not isinstance(spec, ModuleSpec):
            continue
        places = map(Path, filter(None, [spec.origin, *(spec.submodule_search_locations or ())]))
        within = [place for place in places if folder in place.parents]
        if top != "stereo" and any(
            place.relative_to(folder).parts[0] in (top, f"{top}.py") for place in within
        ):
            found.append(name)
    return found


def _attribute(module: ModuleType, path: Path, name: str) -> Any:
    if not hasattr(module, name):
        known = [
            key
            for key, each in vars(module).items()
            if isinstance(each, Matcher)
            or (getattr(each, "__module__", None) == module.__name__ and callable(each))
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

"""Commands, and arguments derived from functions and dataclasses."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, Namespace

from stereo.errors import UsageError
from stereo.system.compute import ComputeOptions
from stereo.system.limits import DEFAULT_MAX_MEGAPIXELS, MAX_MEGAPIXELS_VARIABLE


@dataclass(frozen=True)
class Command:
    """One command."""

    name: str  # what stands after `stereo`
    # gives a parser its arguments; called for the command that runs alone
    add_arguments: Callable[[ArgumentParser], None]
    function: Callable[[Namespace], int]  # does the work and returns the exit status
    summary: str  # one line of help
    example: str  # a worked call
    distributed: bool = False  # whether processes of torchrun share its work
    reads_pictures: bool = False  # whether it reads images, so that it has `--max-megapixels`


def add_picture_limit(parser: ArgumentParser) -> None:
    """Add the option that ``stereo.system.limits.picture_limit`` takes."""
    parser.add_argument(
        "--max-megapixels",
        type=float,
        help=f"size of the largest image, disparity map or frame that is read (default: "
        f"{DEFAULT_MAX_MEGAPIXELS:g}, or {MAX_MEGAPIXELS_VARIABLE})",
    )


def add_options(
    parser: ArgumentParser,
    described: Any,
    chosen: Sequence[str] = (),
    positional: Sequence[str] = (),
) -> None:
    """Add an argument for each parameter of a function, or each field of a dataclass.

    Its docstring is the help. ``max_disparity`` becomes ``--max-disparity``, a truth value a
    switch, a sequence a list with commas, a tuple of numbers ``HxW``.

    Args:
        parser: receives them.
        described: the function or the dataclass.
        chosen: names of parameters; none for all.
        positional: those that are positional; what has a default may then be left out.
    """
    for name, hint, default, text in _options_of(described):
        if chosen and name not in chosen:
            continue
        absent = default is inspect.Parameter.empty
        required = absent and type(None) not in get_args(hint)
        default, hint = None if absent else default, _without_none(hint)
        flag = f"--{_key(name).replace('_', '-')}"
        # What holds several values stays a text until ``read_options``.
        kind = hint if hint in (int, float) else None
        if name in positional:
            parser.add_argument(name, nargs=None if required else "?", help=text)
        elif required:
            parser.add_argument(flag, required=True, type=kind, help=text)
        elif hint is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif get_origin(hint) is Literal:
            parser.add_argument(flag, default=default, choices=list(get_args(hint)), help=text)
        else:
            shown = "x".join(map(str, default)) if isinstance(default, tuple) else default
            parser.add_argument(flag, type=kind, default=shown, help=text)


def read_options(config: Namespace, described: Any, chosen: Sequence[str] = ()) -> dict[str, Any]:
    """Return the values that ``add_options`` has arguments for, by parameter."""
    found = {}
    for name, hint, *_ in _options_of(described):
        if _key(name) in config and (not chosen or name in chosen):
            value, hint = config[_key(name)], _without_none(hint)
            if value is not None and get_origin(hint) is Sequence:
                value = comma_list(value) if get_args(hint)[0] is str else volumes(value)
            elif value is not None and get_origin(hint) is tuple:
                value = size(value)
            found[name] = value
    return found


def from_function(
    name: str,
    target: str,
    summary: str,
    example: str,
    *,
    positional: Sequence[str] = (),
    status: Callable[[Any], int] = lambda _: 0,
    **facts: bool,
) -> Command:
    """Return the command that calls a function with its parameters as arguments.

    Args:
        name: what stands after ``stereo``.
        target: ``module:function``, imported when the command is called.
        summary: one line of help.
        example: a worked call.
        positional: the parameters that are positional.
        status: from what the function returns to the exit status.
        facts: further fields of ``Command``.
    """

    def function() -> Callable[..., Any]:
        module, _, attribute = target.partition(":")
        found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
        return found

    return Command(
        name,
        lambda parser: add_options(parser, function(), positional=positional),
        lambda config: status(function()(**read_options(config, function()))),
        summary,
        example,
        **facts,
    )


def _options_of(described: Any) -> list[tuple[str, Any, Any, str]]:
    """Return name, type, default and help of each parameter."""
    texts = _help_of(described)
    is_class = inspect.isclass(described)
    hints = get_type_hints(described)
    found = []
    for name, parameter in inspect.signature(described).parameters.items():
        text, is_sentence = texts[name], is_class
        if text == "as in ``ComputeOptions``.":
            text, is_sentence = _help_of(ComputeOptions)[name], True
        text = " ".join(text.split()).replace("``", "")
        if is_sentence:
            text = text[0].lower() + text[1:]
        text = text if text.endswith("...") else text.removesuffix(".")
        found.append((name, hints[name], parameter.default, text))
    return found


def _help_of(described: Any) -> dict[str, str]:
    """Return what docstrings say of each parameter or field, inherited ones too."""
    sources = reversed(inspect.getmro(described)) if inspect.isclass(described) else [described]
    return {
        each.arg_name: each.description or ""
        for source in sources
        if source is not object
        for each in parse_from_object(source).params
    }


def _key(name: str) -> str:
    return "pass" if name == "render_pass" else name  # a word of Python's


def _without_none(hint: Any) -> Any:
    """Return the first type of a union."""
    return get_args(hint)[0] if get_origin(hint) in (Union, UnionType) else hint


def comma_list(text: str) -> list[str]:
    """Return the names of a list with commas.

    Raises:
        UsageError: there are none.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"'{text}' is empty; expected names separated by commas")
    return parts


def size(text: str) -> tuple[int, ...]:
    """Return height and width of ``HxW``."""
    return _sides(text, 2, "a size; write it as HxW, such as 544x960")


def volumes(text: str) -> list[tuple[int, ...]]:
    """Return the sides of each ``DxHxW`` of a list with commas."""
    remedy = "a volume; write it as DxHxW, such as 48x136x240"
    return [_sides(part, 3, remedy) for part in comma_list(text)]


def _sides(text: str, count: int, remedy: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != count or not all(part.isdecimal() and int(part) for part in parts):
        raise UsageError(f"'{text}' is not {remedy}")
    return tuple(map(int, parts))

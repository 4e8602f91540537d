"""What a command is made of, and arguments that several share."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from jsonargparse import ArgumentParser, Namespace

from stereo.system.limits import DEFAULT_MAX_MEGAPIXELS, MAX_MEGAPIXELS_VARIABLE

T = TypeVar("T")


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
    reads_pictures: bool = False  # whether it reads pictures, so that it has `--max-megapixels`


def add_picture_limit(parser: ArgumentParser) -> None:
    """Add the option that ``stereo.system.limits.picture_limit`` takes."""
    parser.add_argument(
        "--max-megapixels",
        type=float,
        help=f"of a picture, a disparity map or a frame; larger files are refused (default: "
        f"{DEFAULT_MAX_MEGAPIXELS:g}, or {MAX_MEGAPIXELS_VARIABLE})",
    )


def add_choices(parser: ArgumentParser, default_pass: str) -> None:
    """Add what chooses among the pairs of a data set.

    Args:
        parser: receives them.
        default_pass: what the help says of the pass when none is named.
    """
    parser.add_argument("--split", help="a split of the data set, such as train or test")
    parser.add_argument(
        "--pass", help=f"clean or final, for rendered data (default: {default_pass})"
    )
    parser.add_argument("--layout", help="the data set's tree by name (default: found by looking)")
    parser.add_argument(
        "--unused", help="Scene Flow's all_unused_files.txt; its frames are left out"
    )


def add_fields(
    parser: ArgumentParser, options: type, names: Sequence[str] = (), positional: bool = False
) -> None:
    """Add an argument for each field of a dataclass, with the field's docstring as its help.

    The field ``max_disparity`` becomes ``--max-disparity``, a truth value a switch.

    Args:
        parser: receives them.
        options: the dataclass.
        names: of the fields; none for all.
        positional: whether they are positional; those with a default may then be left out.
    """
    help_of = {each.arg_name: each.description or "" for each in parse_from_object(options).params}
    hints = get_type_hints(options)
    for each in dataclasses.fields(options):
        if names and each.name not in names:
            continue
        hint, required = hints[each.name], each.default is dataclasses.MISSING
        text = " ".join(help_of[each.name].split())
        text = text[0].lower() + (text[1:] if text.endswith("...") else text[1:].removesuffix("."))
        flag = f"--{each.name.replace('_', '-')}"
        if positional:
            parser.add_argument(each.name, nargs=None if required else "?", help=text)
        elif required:
            parser.add_argument(flag, required=True, help=text)
        elif hint is bool:
            parser.add_argument(flag, action="store_true", help=text)
        elif get_origin(hint) is Literal:
            parser.add_argument(flag, default=each.default, choices=list(get_args(hint)), help=text)
        else:
            kind = next(part for part in get_args(hint) or (hint,) if part is not type(None))
            parser.add_argument(flag, type=kind, default=each.default, help=text)


def read_fields(config: Namespace, options: type[T]) -> T:
    """Return the dataclass whose fields ``add_fields`` made arguments of."""
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    return options(**{each.name: config[each.name] for each in fields})

"""The command line: parse, then call one function."""

import contextlib
import io
import os
import re
import sys
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, get_args

from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from stereo.commands import COMMANDS, GROUPS, Command
from stereo.commands.command import add_picture_limit
from stereo.errors import FolderInUseError, InputError, StereoError, UsageError
from stereo.system.distributed import is_main, leave, let_main_speak, process_count
from stereo.system.files import remove_empty_folders
from stereo.system.limits import picture_limit
from stereo.system.stop import INTERRUPTED, TERMINATED, check_stop, heed_signals, leave_to_system
from stereo.system.threads import share_cores
from stereo.version import __version__

DESCRIPTION = "Stereo depth: disparity maps from rectified pairs, and reproducible numbers."
TRACEBACK = "STEREO_TRACEBACK"
"""Environment variable: with it an error of the program itself ends in Python's traceback."""
_NAMES = "|".join(
    name.replace(" ", r"\.")
    for name in sorted({*GROUPS, *(command.name for command in COMMANDS)}, key=len, reverse=True)
)
_TYPES = {
    "str": "a string",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping",
    "tuple": "a list, as in [A, B]",
}


class _Help(DefaultHelpFormatter):
    """Help that keeps the line breaks of the worked examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if not text.startswith("example"):
            return super()._fill_text(text, width, indent)
        return "\n".join(indent + line for line in text.splitlines()) + "\n"


def _own_error(error: BaseException | None) -> StereoError | None:
    """Return the ``StereoError`` that others were raised from, if there is one."""
    while error is not None and not isinstance(error, StereoError):
        error = error.__cause__ or error.__context__
    return error


def _as_usage_error(error: Exception) -> StereoError:
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return _own_error(error) or UsageError(f"an option or a recipe cannot be used ({line[:300]})")


def _in_yaml(value: object) -> str:
    return "null" if value is None else f"'{value}'"


def _in_words(line: str) -> str:
    """Rewrite jsonargparse's message without names of Python types."""
    line = re.sub(  # the first type of a union is the one that is meant
        r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: - (.*?)"
        r"(?: - Expected (?:a )?<class 'NoneType'>.*?)? Given value type: .*? Given value: (.*)",
        lambda m: (
            m[1] if "Got value: " in m[1] or "<class" not in m[1] else f"{m[1]}. Got value: {m[2]}"
        ),
        line,
    )
    line = re.sub(
        r"Parser key \"([\w.]+)\": Unable to load config '(.*?)' - .*",
        r"'\1' is \2; it has fields, as in --\1.FIELD VALUE",
        line,
    )
    line = re.sub(
        r"Parser key \"([\w.]+)\": Expected (.*?)\. Got value: (.*)",
        r"'\1' is \3; expected \2",
        line,
    )
    line = re.sub(r"a typing\.Literal\[(.*?)\]", lambda m: f"one of {m[1]}".replace("'", ""), line)
    return re.sub(r"(?:a )?<class '(\w+)'>", lambda m: _TYPES.get(m[1], m[1]), line)


@contextlib.contextmanager
def _usage_errors() -> Iterator[None]:
    """Turn errors of jsonargparse and the dataclasses into a ``UsageError``."""
    try:
        yield
    except (StereoError, MemoryError):
        raise
    except Exception as error:
        raise _as_usage_error(error) from error


class _Parser(ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a typo is no other option

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse; unexpected errors in files become one line too."""
        with _usage_errors():
            return super().parse_args(*args, **kwargs)

    def instantiate(self, *args: Any, **kwargs: Any) -> Any:
        """Build the dataclasses; their errors become a ``UsageError``."""
        self._refuse_nulls(args[0])
        with _usage_errors():
            return super().instantiate(*args, **kwargs)

    def _refuse_nulls(self, config: Namespace) -> None:
        """Refuse null where a field needs a value: jsonargparse takes it for any type."""
        for action in self._actions:
            if action.default is None or action.default is SUPPRESS:
                continue
            section = action.dest.rpartition(".")[0]
            if section and not isinstance(config.get(section), Namespace):
                raise UsageError(
                    f"'{section}' is {_in_yaml(config.get(section))}; it has fields, such as "
                    f"'{action.dest}'"
                )
            optional = type(None) in get_args(getattr(action, "_typehint", None))
            if config.get(action.dest) is None and not optional:
                raise UsageError(
                    f"'{action.dest}' is null; leave it out for its default, {action.default}"
                )

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        own = _own_error(ex)
        line = " ".join(str(own or message).split())
        program = self.prog
        if program == "stereo":  # it names a command's arguments "infer.left"
            prefix = rf"(?<![\w.])({_NAMES})\.(?=\w)"
            command = re.search(prefix, line)
            program += f" {command[1].replace('.', ' ')}" if command else ""
            line = re.sub(prefix, "", line)
        line = _in_words(line)
        line = re.sub(
            r"Parser key \"([\w.]+)\": (?:Not a valid subclass|Expected a dot import path).*",
            r"'\1' takes its fields by name, as in --\1.name NAME or '{name: NAME}'",
            line,
        )
        if self.description:
            line += f" (see '{program} --help')"
        else:  # of a dataclass within a field
            fields = (action.dest for action in self._actions if action.default is not SUPPRESS)
            line += f"; its fields: {', '.join(fields)}"
        let_main_speak()
        _tell(f"stereo: error: {line}")
        sys.exit(2)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0 on success, 1 on a failure of the work, 2 on a wrong call."""
    heed_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for names that it cannot encode
    try:
        status = run(arguments)
    except KeyboardInterrupt:  # while the arguments were read
        status = _fail("", "interrupted", INTERRUPTED)
    except SystemExit as leaving:
        if leaving.code == TERMINATED and is_main():
            _tell("stereo: terminated; each file written so far is whole")
        raise
    except Exception as error:  # what bad input raises is a StereoError; this is ours to fix
        if os.environ.get(TRACEBACK):
            raise
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        message = f"internal error, please report it ({told}); set {TRACEBACK}=1 for the traceback"
        status = _fail("", message, 1)
    leave_to_system()
    sys.exit(status)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _build_parser(given)
    try:
        config = parser.instantiate(parser.parse_args(given))
    except StereoError as error:  # a recipe that cannot be read, a dataclass that refuses
        let_main_speak()
        return _fail(given[0], str(error), error.exit_status)
    name, config = _chosen(config)
    if not name:
        parser.print_help()
        return _fail("", "name a command", 2)
    from stereo.system.console import show_warnings_as_lines

    if process_count() > 1 and not commands[name].distributed:
        let_main_speak()
        return _fail(name, "runs in one process; start it without torchrun", 2)
    show_warnings_as_lines()
    try:
        with picture_limit(config.get("max_megapixels")):
            share_cores()  # loads OpenCV, which reads the limit then
            check_stop()
            status = commands[name].function(config)
        leave()
        check_stop()
        return status
    except (UsageError, InputError, FolderInUseError) as error:  # which all processes meet alike
        let_main_speak()
        return _fail(name, str(error), error.exit_status)
    except StereoError as error:
        return _fail(name, str(error), error.exit_status)
    except KeyboardInterrupt:
        if not is_main():
            return INTERRUPTED
        return _fail(name, "interrupted; each file written so far is whole", INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe has left (`| head`): no message, and no second error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, RuntimeError) as error:
        from stereo.system.runtime import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        return _fail(name, "out of memory; give it smaller images, ranges or batches", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(name, f"{where}{error.strerror or error}", 1)
    finally:
        remove_empty_folders()


def _fail(command: str, message: str, status: int) -> int:
    _tell(f"{f'stereo {command}'.strip()}: error: {message}")
    return status


def _tell(line: str) -> None:
    if sys.stderr is not None:  # closed
        sys.stderr.write(f"{line}\n")


def _build_parser(arguments: Sequence[str]) -> tuple[ArgumentParser, dict[str, Command]]:
    """Return the parser, and the commands by name ("benchmark attention" is one).

    Only the command that is called gets its arguments: those of some cost seconds of imports.
    """
    parser = _Parser(
        prog="stereo", description=DESCRIPTION, version=__version__, formatter_class=_Help
    )
    groups = {"": parser.add_subcommands(required=False, dest="command")}
    for command in COMMANDS:
        group, _, name = command.name.rpartition(" ")
        if group not in groups:
            parent = _Parser(
                description=GROUPS[group][0].upper() + GROUPS[group][1:] + ".",
                epilog=f"example:\n  {command.example}",
            )
            groups[""].add_subcommand(group, parent, help=GROUPS[group])
            parent.prog = f"stereo {group}"
            groups[group] = parent.add_subcommands(dest="command")
        own = _Parser(
            description=command.summary[0].upper() + command.summary[1:] + ".",
            epilog=f"example:\n  {command.example}",
        )
        if list(arguments[: len(command.name.split())]) == command.name.split():
            command.add_arguments(own)
            if command.reads_pictures:
                add_picture_limit(own)
        groups[group].add_subcommand(name, own, help=command.summary)
        own.prog = f"stereo {command.name}"
    return parser, {command.name: command for command in COMMANDS}


def _chosen(config: Namespace) -> tuple[str, Namespace]:
    """Return the name and arguments of the command that was given; "" for none."""
    name = ""
    while config.get("command"):
        name, config = f"{name} {config.command}".strip(), config[config.command]
    return name, config

"""JSON and YAML of unknown origin: bounded in size and depth, each key once."""

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stereo.errors import InputError
from stereo.system.limits import check_file

MAX_JSON_BYTES = 2**26
MAX_JSON_DEPTH = 64
MAX_DIGITS = 300  # of a whole number: more than a floating-point number can have
MAX_YAML_BYTES = 2**18  # so that PyYAML without its C library takes seconds, not half a minute
MAX_YAML_DEPTH = 32
MAX_YAML_NODES = 20_000
MAX_YAML_SCALAR = 1_000  # characters, unless quoted text: base-60 numbers take quadratic time

_YAML_NUMBERS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)\Z"),
    "float": re.compile(
        r"([-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))\Z"
    ),
}


def parse_json(text: str | bytes, name: str) -> Any:
    """Parse untrusted JSON.

    Raises:
        InputError: not JSON, larger than ``MAX_JSON_BYTES``, nested deeper than
            ``MAX_JSON_DEPTH``, with a key that appears twice in an object, or with text or whole
            numbers that nothing else can hold.
    """
    if len(text) > MAX_JSON_BYTES:
        raise InputError(f"{name}: more than {MAX_JSON_BYTES // 2**20} MiB of JSON")
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_int=_whole_number)
        if "\\ud" in (text.lower() if isinstance(text, str) else text.decode().lower()):
            json.dumps(value, ensure_ascii=False).encode()  # halves of pairs are no text
    except RecursionError:
        raise InputError(f"{name}: JSON nested too deeply; damaged, get it again") from None
    except ValueError as error:  # of JSON or of UTF-8
        raise InputError(f"{name}: not valid JSON ({error})") from error
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return value
    raise InputError(f"{name}: JSON nested deeper than {MAX_JSON_DEPTH} levels")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"'{key[:40]}' appears twice; remove one")
        found[key] = value
    return found


def read_json(path: Path) -> Any:
    """Parse an untrusted JSON file; ``InputError`` if it is missing or as in ``parse_json``."""
    check_file(path, MAX_JSON_BYTES, "a JSON file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from error
    return parse_json(text, str(path))


def _whole_number(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits")
    return int(text)


def parse_yaml(text: str, name: str) -> Any:
    """Parse the first non-empty document of untrusted YAML.

    Matrices of OpenCV (``!!opencv-matrix``) come back as the mappings that they are. Numbers are
    decimal: what YAML 1.1 reads in base 2, 8, 16 or 60 (``0700``, ``11:40``) comes back as text.

    Raises:
        InputError: not YAML; larger, deeper or with more nodes (aliases counted as what they stand
            for) than the limits above; a key that appears twice; a tag other than YAML's own.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise InputError(f"{name}: more than {MAX_YAML_BYTES / 2**20:g} MiB of YAML")
    loader = _yaml_loader()
    try:
        _check_yaml(yaml.parse(text, loader), name)
        return next((each for each in yaml.load_all(text, loader) if each is not None), None)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise InputError(f"{name}: not valid YAML ({problem[:80]}{where})") from error
    except InputError:
        raise
    except Exception as error:  # PyYAML's constructors raise nearly anything: !!bool x, !!int ''
        raise InputError(f"{name}: not valid YAML ({str(error)[:80]})") from error


def _check_yaml(events: Iterable[Any], name: str) -> None:
    """Raise ``InputError`` for YAML that is too deep or too large once aliases are followed.

    It reads the parser's events, since composing recurses, in C for the fast loader.
    """
    import yaml

    sizes = [0]  # nodes so far within each open collection
    anchors: dict[str, int | None] = {}
    opened: list[str | None] = []
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            size = anchors.get(event.anchor)
            if event.anchor in anchors and size is None:
                raise InputError(f"{name}: a YAML alias refers to itself")
            sizes[-1] += size or 1
        elif isinstance(event, yaml.ScalarEvent):
            is_text = event.style and event.tag is None
            if not is_text and len(event.value) > MAX_YAML_SCALAR:
                raise InputError(
                    f"{name}: {len(event.value)} characters in a number or a bare word"
                )
            if event.anchor is not None:
                anchors[event.anchor] = 1
            sizes[-1] += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(opened) >= MAX_YAML_DEPTH:
                raise InputError(f"{name}: YAML nested deeper than {MAX_YAML_DEPTH} levels")
            if event.anchor is not None:
                anchors[event.anchor] = None
            opened.append(event.anchor)
            sizes.append(1)
        elif isinstance(event, yaml.CollectionEndEvent):
            size = sizes.pop()
            anchor = opened.pop()
            if anchor is not None:
                anchors[anchor] = size
            sizes[-1] += size
        if sizes[-1] > MAX_YAML_NODES:
            raise InputError(f"{name}: more than {MAX_YAML_NODES} values of YAML")


@functools.cache
def _yaml_loader() -> Any:
    """Return PyYAML's safe loader, in C if available, extended by OpenCV's matrices."""
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def mapping(loader: Any, node: Any) -> dict[Any, Any]:
        found = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in found:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"'{key.value}' appears twice; remove one", key.start_mark
                    )
                found.add(key.value)
        return dict(loader.construct_mapping(node, deep=True))

    class Loader(base):  # type: ignore[misc, valid-type]
        pass

    tags = {f"tag:yaml.org,2002:{kind}": pattern for kind, pattern in _YAML_NUMBERS.items()}
    Loader.yaml_implicit_resolvers = {
        start: [(tag, pattern) for tag, pattern in known if tag not in tags]
        for start, known in base.yaml_implicit_resolvers.items()
    }
    for tag, pattern in tags.items():
        Loader.add_implicit_resolver(tag, pattern, list("+-.0123456789"))
    Loader.add_constructor("tag:yaml.org,2002:map", mapping)
    Loader.add_multi_constructor(
        "tag:yaml.org,2002:opencv-", lambda loader, _, node: mapping(loader, node)
    )
    return Loader

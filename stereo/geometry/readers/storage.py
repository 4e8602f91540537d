"""Entries by name of files in YAML, XML and JSON: parsed in Python, checked and bounded.

OpenCV's own parser (``cv2.FileStorage``) corrupts memory on damaged files, so none reaches it.
"""

import re
from typing import Any
from xml.parsers import expat

from stereo.errors import InputError
from stereo.system.parsing import parse_json, parse_yaml

MAX_DEPTH = 32
MAX_ELEMENTS = 20_000
_YAML_HEADER = re.compile(r"\A\s*%YAML[: ][^\n]*\n?")
_YAML_KEY = re.compile(r"^[\w.\"'/~-]+[ \t]*:(?=[ \t\n]|\Z)", re.MULTILINE)


def load_entries(text: str, name: str) -> dict[str, Any] | None:
    """Return the entries of a document at its top level; None if it looks like none.

    Raises:
        InputError: damaged, or beyond the bounds.
    """
    start = text.lstrip()[:1]
    if start == "{":
        entries = parse_json(text, name)
    elif start == "<":
        entries = _parse_xml(text, name)
    elif _YAML_HEADER.match(text) or _YAML_KEY.search(text):
        # A line %YAML:1.0 is OpenCV's alone; 1.2 is what PyYAML reads without its header, too.
        entries = parse_yaml(_YAML_HEADER.sub("", text, count=1), name)
    else:
        return None
    return {str(key): value for key, value in entries.items()} if isinstance(entries, dict) else {}


def _parse_xml(text: str, name: str) -> dict[str, Any]:
    """Return OpenCV's XML with texts as leaves; entities, which can expand without end, refused."""
    parser = expat.ParserCreate()
    open_elements: list[tuple[dict[str, Any], list[str]]] = [({}, [])]
    elements = 0

    def refuse(*_: Any) -> None:
        raise InputError(
            f"{name}: XML with a DOCTYPE or entities, which OpenCV's files do not have"
        )

    def begin(tag: str, attributes: dict[str, str]) -> None:
        nonlocal elements
        elements += 1
        if elements > MAX_ELEMENTS or len(open_elements) > MAX_DEPTH:
            raise InputError(
                f"{name}: XML deeper than {MAX_DEPTH} levels or with more than "
                f"{MAX_ELEMENTS} elements"
            )
        open_elements.append((dict(attributes), []))

    def end(tag: str) -> None:
        children, texts = open_elements.pop()
        is_leaf = not children.keys() - {"type_id"}
        value = "".join(texts).strip().strip('"') if is_leaf else children
        siblings = open_elements[-1][0]
        if tag in siblings and tag != "_":  # OpenCV calls the entries of a list _
            raise InputError(f"{name}: '{tag[:40]}' appears twice; remove one")
        siblings[tag] = value

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda characters: open_elements[-1][1].append(characters)
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except (expat.ExpatError, ValueError) as error:
        raise InputError(
            f"{name}: OpenCV's XML is expected, but it is cut or damaged ({str(error)[:80]})"
        ) from error
    root = open_elements[0][0].get("opencv_storage")
    return root if isinstance(root, dict) else {}

"""What ``fuzz.py`` does to files: changes of bytes, of numbers, and of what they mean."""

import contextlib
import io
import json
import random
import re
import struct
import warnings
import zipfile
from typing import Any

NUMBERS = (
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"-inf",
    b"2147483648",
    b"1e-320",
    b"9" * 400,
    b"9" * 5000,
)
ODD: tuple[object, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    1e300,
    float("inf"),
    float("nan"),
    2**31,
    2**63,
    10**400,
    "",
    "x",
)
ODD += ("\ud800", "../../x", "x" * 5000, [], {}, [[]], [1, 2], {"a": 1}, "@deep@", "@digits@")
DEEP, DIGITS = "[" * 100_000 + "]" * 100_000, "9" * 5000


def damage(data: bytes, others: list[bytes], dice: random.Random) -> bytes:
    """Change bytes, numbers or what they mean, once or a few times."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        kinds = dice.sample(MEANINGS, len(MEANINGS)) if dice.random() < 0.6 else []
        changed = (kind(data, dice) for kind in kinds)
        found = next((each for each in changed if each is not None), None)
        if found is None:
            found = dice.choice(BYTES)(data, dice.choice(others), dice)
        data = found
    return data


def _flip(data: bytes, _: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data or b"x")
    for _time in range(dice.choice((1, 1, 4, 16))):
        changed[dice.randrange(min(len(changed), dice.choice((64, 1024, 2**40))))] = dice.randrange(
            256
        )
    return bytes(changed)


def _cut(data: bytes, _: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _splice(data: bytes, other: bytes, dice: random.Random) -> bytes:
    start, at = dice.randrange(len(other) + 1), dice.randrange(len(data) + 1)
    part = other[start : start + dice.choice((1, 8, 100, 4096))]
    return data[:at] + part * dice.choice((1, 1, 3)) + data[at + dice.choice((0, len(part))) :]


def _number(data: bytes, other: bytes, dice: random.Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?([eE][-+]?\d+)?", data[:100_000]))
    if not found:
        return _flip(data, other, dice)
    start, end = dice.choice(found).span()
    return data[:start] + dice.choice(NUMBERS) + data[end:]


def _integer(data: bytes, _: bytes, dice: random.Random) -> bytes:
    kind, most = dice.choice((("H", 2**16), ("I", 2**32), ("Q", 2**64)))
    value = dice.choice((0, 1, most - 1, most // 2, most // 2 - 1, most // 4, most // 5))
    packed = struct.pack(dice.choice("<>") + kind, value)
    at = dice.randrange(min(len(data) + 1, dice.choice((64, 1024, 2**40))))
    return data[:at] + packed + data[at + len(packed) :]


def _edited(tree: Any, dice: random.Random) -> str:
    """Return JSON with one of its values changed; of JSON within a text, one of its own."""
    places: list[tuple[Any, Any]] = []
    nodes = [tree]
    for node in nodes:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                nodes.append(node[key])
    node, key = dice.choice(places) if places else ([tree], 0)
    odd = dice.choice(ODD)
    with contextlib.suppress(ValueError, TypeError, RecursionError):  # it may be damaged already
        inner = json.loads(node[key])
        odd = _edited(inner, dice) if isinstance(inner, dict | list) else odd
    if places and dice.random() < 0.1:
        del node[key]
    elif isinstance(node, dict) and dice.random() < 0.05:
        node[str(odd)[:50]] = node.pop(key)
    else:
        node[key] = odd
    written = json.dumps(tree if places else node[0])
    return written.replace('"@deep@"', DEEP).replace('"@digits@"', DIGITS)


def _json(data: bytes, dice: random.Random) -> bytes | None:
    lines = data.splitlines() if data.startswith(b'{"settings"') else [data]
    at = dice.randrange(len(lines) or 1)
    try:
        tree = json.loads(lines[at])
    except (ValueError, RecursionError, IndexError):
        return None
    if not isinstance(tree, dict | list):
        return None
    lines[at] = _edited(tree, dice).encode("utf-8", "replace")
    return b"\n".join(lines)


def _lines(data: bytes, dice: random.Random) -> bytes | None:
    lines = data.split(b"\n")
    if b"\0" in data or len(lines) < 3:
        return None
    at = dice.randrange(len(lines))
    name, colon, _ = lines[at].partition(b":")
    odd = dice.choice(
        (b"", b"null", b"[]", b"{}", b"*a", b"&a [*a]", b"!!python/none", b"- x", b"\xff")
    )
    lines[at : at + 1] = dice.choice(
        (
            [],
            [lines[at]] * 2,
            [b"  " + lines[at]],
            [lines[at].lstrip()],
            [name + colon + b" " + odd],
        )
    )
    return b"\n".join(lines)


def _zip(data: bytes, dice: random.Random) -> bytes | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(each, archive.read(each)) for each in archive.infolist()]
    except Exception:
        return None
    if not members:
        return None
    chosen, written = dice.randrange(len(members)), io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(written, "w") as archive:
        warnings.simplefilter("ignore")
        for number, (member, content) in enumerate(members):
            if number == chosen:
                content = dice.choice((b"", bytes(10**7), damage(content, [content], dice)))
                member.compress_type = dice.choice((0, 8, 8, 12, 14))
            archive.writestr(member.filename, content, member.compress_type)
    return written.getvalue()


def _safetensors(data: bytes, dice: random.Random) -> bytes | None:
    try:
        (length,) = struct.unpack("<Q", data[:8])
        tree = json.loads(data[8 : 8 + length]) if length < len(data) else None
    except (ValueError, RecursionError, struct.error):
        return None
    if not isinstance(tree, dict):
        return None
    part = tree.get("__metadata__")
    if isinstance(part, dict) and dice.random() < 0.7:
        written = json.dumps(tree | {"__metadata__": "@part@"})
        written = written.replace('"@part@"', _edited(part, dice))
    else:
        written = _edited(tree, dice)
    header = written.encode("utf-8", "replace")
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def _onnx(data: bytes, dice: random.Random) -> bytes | None:
    import onnx

    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception:
        return None
    if not (proto.metadata_props and proto.graph.node):
        return None
    fact, node = dice.choice(proto.metadata_props), dice.choice(proto.graph.node)
    kind = dice.choice(("fact", "fact", "dims", "input", "operator", "attribute"))
    if kind == "fact":
        with contextlib.suppress(ValueError):
            tree = json.loads(fact.value)
            if isinstance(tree, dict) and dice.random() < 0.8:
                fact.value = _edited(tree, dice).encode("utf-8", "replace")
                return proto.SerializeToString()
        fact.value = dice.choice(NUMBERS).decode()
    elif kind == "dims":
        dice.choice(proto.graph.initializer).dims.append(dice.choice((0, -1, 2**31, 2**62)))
    elif kind == "input" and node.input:
        node.input[dice.randrange(len(node.input))] = dice.choice(("left", "certain", "", "axis"))
    elif kind == "operator":
        node.op_type = dice.choice(("ConstantOfShape", "Expand", "Tile", "Concat", "Conv", "Range"))
    else:
        name = dice.choice(("axis", "axes", "keepdims", "shape", "value"))
        value = dice.choice((0, -1, 2**31, [2**40], [], 1.5, "x"))
        with contextlib.suppress(ValueError, TypeError):
            node.attribute.append(onnx.helper.make_attribute(name, value))
    return proto.SerializeToString()


BYTES = (_flip, _cut, _splice, _number, _integer)
MEANINGS = (_json, _zip, _safetensors, _onnx, _lines)

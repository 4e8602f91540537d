"""JSON and YAML that are refused before they take memory or time."""

import os
import time

import pytest

from stereo.commands.resume_log import RESUME_LOG, ResumeLog
from stereo.errors import InputError
from stereo.geometry import Calibration
from stereo.system import parsing


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, b"\xff", "1" * 9999, '{"a": 1, "a": 2}']
)
def test_invalid_or_deep_json_is_an_input_error(text):
    with pytest.raises(InputError, match="JSON"):
        parsing.parse_json(text, "file")


def test_json_of_usual_depth_is_read():
    assert parsing.parse_json('{"a": [1, {"b": null}]}', "file") == {"a": [1, {"b": None}]}


def test_json_of_too_many_bytes_is_refused_unparsed(tmp_path, monkeypatch):
    monkeypatch.setattr(parsing, "MAX_JSON_BYTES", 2**20)
    text = "[" * (2**20 + 1)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match="more than 1 MiB of JSON"):
        parsing.parse_json(text, "file")
    with pytest.raises(InputError, match=r"a\.json: 1\.0 MiB, more than the 1 MiB"):
        parsing.read_json(tmp_path / "a.json")


def test_json_with_the_byte_order_mark_of_windows_is_read(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff[1]", encoding="utf-8")
    assert parsing.read_json(tmp_path / "a.json") == [1]


ALIASES = "a0: &a0 [1, 2]\n" + "".join(
    f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nest"),
        ("- " * 30_000, "nested deeper"),
        ("{a: " * 40 + "}" * 40, "nested deeper"),
        ("a: 1\n" * 200_000, "MiB of YAML"),
        ("- 1\n" * 60_000, "20000 values"),
        ("[" + "1," * 120_000 + "]", "20000 values"),
        (ALIASES, "20000 values"),
        ("a: &a [*a]", "refers to itself"),
        ("a: " + ":".join(["59"] * 80_000), "characters in a number"),
        ("a: 1\na: 2", "'a' appears twice"),
        ("!!python/object:os.system {}", "constructor"),
        ("a: 2020-13-45", "month"),
        ("a: !!bool x", "not valid YAML"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!float 1" + ":1" * 400, "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ('a: !!int "' + "1:" * 120_000 + '1"', "characters in a number"),
        ("a: [1", "not valid YAML"),
        ("a: \0", "not valid YAML"),
    ],
)
def test_invalid_or_large_yaml_is_one_line(text, message):
    began = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        parsing.parse_yaml(text, "file")
    assert time.process_time() - began < 10  # of the processor: no hang
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_yaml_reads_aliases_matrices_and_only_the_first_document():
    text = "---\n---\nm: !!opencv-matrix\n  rows: 1\nlist: &l [1, 2]\nagain: *l\n---\nother: 1\n"
    expected = {"m": {"rows": 1}, "list": [1, 2], "again": [1, 2]}
    assert parsing.parse_yaml(text, "file") == expected
    assert parsing.parse_yaml("", "file") is None


@pytest.mark.parametrize(
    "text", ['{"a": 1' + "0" * 400 + "}", '"\\ud800"', b'"\\uDfff"', b'"\xff"', "[" * 1000]
)
def test_json_with_unrepresentable_values_is_refused(text):
    with pytest.raises(InputError, match=r"^it: [^\n]+$"):
        parsing.parse_json(text, "it")


def test_json_keeps_pairs_of_surrogates_and_large_numbers():
    assert parsing.parse_json('["\\ud83d\\ude00", 18446744073709551615]', "it") == [
        "\U0001f600",
        2**64 - 1,
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_pipes_and_devices_are_refused_before_they_are_opened(tmp_path):
    pipe = tmp_path / RESUME_LOG
    os.mkfifo(pipe)
    for path in (pipe, tmp_path.parent / os.devnull):
        for read in (parsing.read_json, Calibration.read):
            with pytest.raises(InputError, match="is a pipe or a device, expected a file"):
                read(path)
    with pytest.raises(InputError, match="is a pipe or a device"):
        ResumeLog(tmp_path, {}, []).read([])


@pytest.mark.parametrize("text", ["0700", "11:40", "1:2.5", "0x2bc", "0b11", "1_000", "0o17"])
def test_yaml_numbers_are_decimal(text):
    assert parsing.parse_yaml(f"a: {text}", "file") == {"a": text}


def test_usual_yaml_numbers_are_numbers():
    text = "[0, -7, +7, 1.5, 700., .5, -1e3, 7.0e+02, 1.E-3, .inf, 00.5]"
    read = parsing.parse_yaml(text, "file")
    assert read == [0, -7, 7, 1.5, 700, 0.5, -1000, 700, 0.001, float("inf"), 0.5]
    assert [type(each) for each in read[:4]] == [int, int, int, float]

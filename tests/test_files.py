"""Text, JSON and notes, as everything that reads files uses them."""

import json
import logging

import pytest

from backtal.errors import CheckpointError, DataError
from backtal.files import note, parse_json, read_json, read_lines, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_is_read_as_programs_write_it(tmp_path, encoding):
    path = tmp_path / "labels.txt"
    path.write_bytes("öffnen\r\n\r\n  schließen \n".encode(encoding))
    assert read_text(path) == "öffnen\r\n\r\n  schließen \n"
    assert read_lines(path) == ["öffnen", "schließen"]
    path.write_bytes(json.dumps({"labels": ["跳"]}).encode(encoding))
    assert read_json(path) == {"labels": ["跳"]}


def test_a_key_that_is_there_twice_is_an_error(tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text('{"database": {"v": {"duration": 1}, "w": {}, "v": {"duration": 2}}}')
    with pytest.raises(DataError, match=r"annotations.json: not valid JSON: the key 'v' occurs twice"):
        read_json(path)
    assert parse_json('[{"a": 1}, {"a": 2}]', "x") == [{"a": 1}, {"a": 2}]


def test_what_is_no_text_is_said_with_the_error_that_is_asked_for(tmp_path):
    path = tmp_path / "config.json"
    for content, message in (
        (b"PK\x03\x04", "a zip archive"),
        (b"{\xff}", "not a text file"),
        (b"[]", "expected a JSON"),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            read_json(path, CheckpointError)
    with pytest.raises(DataError, match="gone: cannot be read"):
        read_lines(tmp_path / "gone")


def test_a_note_is_a_warning_of_the_package(caplog):
    note("left out: 3 rows")
    assert caplog.record_tuples == [("backtal", logging.WARNING, "left out: 3 rows")]

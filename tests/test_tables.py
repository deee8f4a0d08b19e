"""CSV as tools write it: the same rows come out, or a sentence with file and line."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import pytest

from vadpipe.datasets.tables import Row, rows
from vadpipe.errors import UserError

COLUMNS = ["clip", "first", "last"]
PLAIN = "clip,first,last\nb1,4,7\nb2,,\n"
EXPECTED = [("b1", "4", "7"), ("b2", "", "")]


def read(path: Path, data: bytes | str) -> list[Row]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return list(rows(path, COLUMNS))


def values(found: list[Row]) -> list[tuple[str, ...]]:
    return [tuple(row[column] for column in COLUMNS) for row in found]


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        codecs.BOM_UTF8 + PLAIN.encode(),
        PLAIN.encode("utf-16"),
        codecs.BOM_UTF16_LE + PLAIN.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"),
        PLAIN.encode("utf-32"),
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.rstrip("\n"),
        "Clip, FIRST ,Last\nb1 ,  4, 7 \n b2,, \n",
        '"clip","first","last"\r\n"b1","4","7"\r\n"b2","",""\r\n',
        "\n\nclip,first,last\n\n,,\nb1,4,7\n   \n\t\nb2,,\n,,\n",
        "clip,first,last,,\nb1,4,7,,\nb2,,,,\n,,,,\n",
        "clip,first,last\nb1,4,7,\nb2,,,\n",
        "clip;first;last\nb1;4;7\nb2;;\n;;\n",
    ],
)
def test_the_same_rows_come_out(tmp_path: Path, data: bytes | str) -> None:
    assert values(read(tmp_path / "labels.csv", data)) == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252", "latin-1"])
def test_umlauts_in_any_western_encoding(tmp_path: Path, encoding: str) -> None:
    found = read(tmp_path / "labels.csv", "clip,first,last\nHof Süd (1),4,7\n".encode(encoding))
    assert values(found) == [("Hof Süd (1)", "4", "7")]


def test_a_quoted_value_may_hold_the_separator(tmp_path: Path) -> None:
    assert values(read(tmp_path / "labels.csv", 'clip,first,last\n"gate, north",4,7\n')) == [("gate, north", "4", "7")]


def test_rows_say_where_they_stand(tmp_path: Path) -> None:
    found = read(tmp_path / "labels.csv", "\r\nclip,first,last\r\n\r\n,,\r\nb1,4,7\r\n\r\nb2,,\r\n")
    assert [row.where for row in found] == [f"{tmp_path / 'labels.csv'}, line {line}" for line in (5, 7)]


@pytest.mark.parametrize(
    ("text", "number"),
    [("4", 4), ("4.0", 4), ("4.", 4), ("007", 7), ("+3", 3), ("-2", -2), ("-0", 0), ("999999999999999999", 10**18 - 1)],
)
def test_whole_numbers(text: str, number: int) -> None:
    assert Row("here", {"first": text}).integers("first") == [number]


@pytest.mark.parametrize("text", ["4.5", "x", "", "4_0", "1e3", "0x4", "nan", "inf", "4,0", "1 2", "٤", "4.0.0", "--4"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(UserError, match=rf"line 3: first is {re.escape(repr(text))}, but a whole number is wanted"):
        Row("labels.csv, line 3", {"first": text}).integers("first")


@pytest.mark.parametrize("text", ["9223372036854775808", "-99999999999999999999", "9" * 5000, "1" + "0" * 18])
def test_numbers_beyond_64_bits(text: str) -> None:
    with pytest.raises(UserError, match=r"line 3: first is '.{1,45}', a number too large") as error:
        Row("labels.csv, line 3", {"first": text}).integers("first")
    assert len(str(error.value)) < 120


def test_zeros_in_front_cost_nothing() -> None:
    assert Row("here", {"first": "0" * 100_000 + "5"}).integers("first") == [5]


HEADER = b"clip,first,last\n"
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"labels\.csv: the first line must be `clip,first,last`, found ''"),
    "blank": (b"\n \n", r"labels\.csv: the first line must be `clip,first,last`, found ''"),
    "no header": (b"b1,4,7\n", r"labels\.csv, line 1: the first line must be `clip,first,last`, found 'b1,4,7'"),
    "other header": (b"clip,start,end\n", r"line 1: the first line must be `clip,first,last`"),
    "column too many": (b"clip,first,last,who\n", r"line 1: the first line must be"),
    "order": (b"first,last,clip\n", r"line 1: the first line must be"),
    "value missing": (HEADER + b"b1,4\n", r"labels\.csv, line 2: expected 3 values: clip,first,last"),
    "value too many": (HEADER + b"\nb1,4,7,9\n", r"labels\.csv, line 3: expected 3 values"),
    "other separator below": (HEADER + b"b1;4;7\n", r"labels\.csv, line 2: expected 3 values"),
    "open quote": (HEADER + b'b0,1,2\n"b1,4,7\nb2,,\n', r"labels\.csv, line 3: cannot be read as CSV"),
    "stray quote": (HEADER + b'"b1"x,4,7\n', r"labels\.csv, line 2: cannot be read as CSV"),
    "megabytes": (HEADER + b"b" * 2_000_000 + b",4,7\n", r"labels\.csv, line 2: cannot be read as CSV \(field larger"),
    "zero byte": (HEADER + b"b1,4,7\nb\0,4,7\n", r"labels\.csv, line 3: there are zero bytes"),
    "utf-16 without mark": (PLAIN.encode("utf-16-le"), r"labels\.csv, line 1: there are zero bytes.*UTF-8"),
    "half utf-16": (PLAIN.encode("utf-16")[:-1], r"labels\.csv is no text in UTF-16"),
    "zip": (b"PK\x03\x04\x14\x00\x06\x00" + bytes(range(256)), r"labels\.csv"),
    "no encoding": (HEADER + b"b\x81\x8d,4,7\n", r"labels\.csv is no text in UTF-8"),
    "broken after the mark": (codecs.BOM_UTF8 + HEADER + b"\xff,4,7\n", r"labels\.csv is no text in UTF-8"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, bad: str) -> None:
    data, message = BAD[bad]
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path / "labels.csv", data)
    assert len(str(error.value)) < len(str(tmp_path)) + 200
    assert "\n" not in str(error.value)

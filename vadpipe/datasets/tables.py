"""CSV as spreadsheets, databases and scripts write it: any Unicode encoding with its mark, any of three separators."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vadpipe.errors import UserError
from vadpipe.files import read_bytes

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}
_SEPARATORS = (",", ";", "\t")
_WHOLE = re.compile(r"([+-]?)([0-9]+)(\.0*)?")
_DIGITS = 18  # every number of so many digits fits into 64 bits
_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        where: its file and line, for messages.
        values: its values by column, without spaces around them.
    """

    where: str
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def integers(self, *columns: str) -> list[int]:
        """Return whole numbers; `4.0` is one, as tools write it that keep numbers as floats.

        Raises:
            UserError: a value is no whole number, or has more than 18 digits.
        """
        return [self._integer(column) for column in columns]

    def _integer(self, column: str) -> int:
        match = _WHOLE.fullmatch(self.values[column])
        if match is None:
            raise UserError(f"{self.where}: {column} is {_shown(self.values[column])}, but a whole number is wanted")
        digits = match[2].lstrip("0") or "0"
        if len(digits) > _DIGITS:
            raise UserError(f"{self.where}: {column} is {_shown(self.values[column])}, a number too large; correct it")
        return int(match[1] + digits)


def rows(path: Path, columns: list[str]) -> Iterator[Row]:
    """Yield the rows of a table whose first line names exactly these columns.

    The file is UTF-8, or UTF-16 or UTF-32 with their mark; where it is no UTF-8, Windows' Western encoding is taken,
    so that clip names with umlauts are found. Values are separated by commas, semicolons or tabs, as the first line
    is. Upper and lower case, spaces and quotes do not matter there. Rows without any value are left out.

    Raises:
        UserError: no text, other columns, or a row that does not fit them.
    """
    lines = _lines(path, _text(path))
    where, header = next(lines, (str(path), ""))
    separator = next((mark for mark in _SEPARATORS if _names(header, mark) == columns), None)
    if separator is None:
        raise UserError(f"{where}: the first line must be `{','.join(columns)}`, found {_shown(header.strip())}")
    for where, line in lines:
        values = _values(where, line, separator)
        if not any(values):
            continue
        # A trailing separator is an empty value; more of them come from a sheet that was once wider.
        if len(values) < len(columns) or any(values[len(columns) :]):
            raise UserError(f"{where}: expected {len(columns)} values: {','.join(columns)}")
        yield Row(where, dict(zip(columns, values, strict=False)))


def _text(path: Path) -> str:
    data = read_bytes(path)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    for name in (encoding, "cp1252") if encoding == "utf-8" else (encoding,):
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: there are zero bytes, so this is no text; save it as CSV in UTF-8")
    raise UserError(f"{path} is no text in {encoding.upper()}, as its first bytes say; save it as CSV in UTF-8")


def _lines(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """Yield where each line stands, and the line; empty ones are left out."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\n")


def _names(header: str, separator: str) -> list[str]:
    names = [name.strip(" \t\"'").lower() for name in header.split(separator)]
    while names and not names[-1]:
        names.pop()
    return names


def _values(where: str, line: str, separator: str) -> list[str]:
    try:
        values = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise UserError(f"{where}: cannot be read as CSV ({error}); correct the line") from None
    return [value.strip() for value in values]


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "...")

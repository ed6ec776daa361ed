"""Raw rows from files, one at a time: JSON lines, JSON arrays, CSV, Parquet and Arrow, plain or gzipped.

Readers hold one row (JSON, CSV) or one batch (Parquet, Arrow), never a file. A damaged row is handed on as a `Raw`
with an error and its text; damage that hides an unknown number of rows (a broken gzip stream, a broken JSON array)
raises RecordError whatever the treatment of bad rows, since no count could be honest after it.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from ..errors import RecordError

MAX_ROW = 1 << 28  # bytes: a longer line is a file without line ends, not a row
CHUNK = 1 << 20
SNIFF = 1 << 16
BATCH_ROWS = 256


class Raw(NamedTuple):
    """One row as read: `row` where it parsed, else `error` and the `text` as it stands. Neither: a blank line."""

    place: int
    row: Any = None
    error: str | None = None
    text: str | None = None

    @property
    def is_blank(self) -> bool:
        return self.row is None and self.error is None


Reader = Callable[[Path], Iterator[Raw]]


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, unzipped where it begins like gzip; unreadable files raise RecordError."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if not zipped and path.suffix == ".gz" and path.stat().st_size:
                raise RecordError("is not a gzip file, whatever its name says.", where=str(path))
            yield gzip.GzipFile(fileobj=file) if zipped else file  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip stream is damaged or cut short ({error}); how many rows follow is unknown."
        raise RecordError(reason, where=str(path), remedy="Fetch or compress the file again.") from None
    except OSError as error:
        raise RecordError(f"cannot be read ({error.strerror or error}).", where=str(path)) from None


def _check_start(head: bytes, path: Path) -> None:
    """Raises RecordError for what is not text at all, before a thousand lines are called bad one by one."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RecordError("is UTF-16 text.", where=str(path), remedy="Save it as UTF-8.")
    if head.startswith(b"version https://git-lfs"):
        raise RecordError("is a Git LFS pointer, not the data.", where=str(path), remedy="Run `git lfs pull`.")
    if head.startswith(b"PAR1"):
        raise RecordError("is a Parquet file.", where=str(path), remedy="Rename it to .parquet.")


# --- JSON lines ---------------------------------------------------------------------------------------------------


def json_lines(path: Path) -> Iterator[Raw]:
    """One JSON object a line; `place` is the line number, from 1. Blank lines come as blank rows."""
    with opened(path) as file:
        number = 0
        while line := file.readline(MAX_ROW):
            number += 1
            if number == 1:
                _check_start(line, path)
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) == MAX_ROW and not line.endswith(b"\n"):
                raise RecordError(f"the line is longer than {MAX_ROW >> 20} MiB.", where=f"{path}:{number}")
            yield parse_line(number, line)


def parse_line(number: int, line: bytes) -> Raw:
    """A line of JSON as a raw row; never raises."""
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        reason = f"the line is not valid UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})."
        return Raw(number, error=reason, text=line.decode("utf-8", "backslashreplace").rstrip("\r\n"))
    if not text:
        return Raw(number)
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return Raw(number, error=f"the line is not JSON ({error.msg} at column {error.colno}).", text=text)
    except (ValueError, RecursionError):
        return Raw(number, error="the line is not JSON that can be read (too deep, or a number too long).", text=text)
    if not isinstance(row, dict):
        what = "a list" if isinstance(row, list) else "text" if isinstance(row, str) else repr(row)[:40]
        return Raw(number, error=f"expected a JSON object on the line, found {what}.", text=text)
    return Raw(number, row)


# --- JSON arrays --------------------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\r\n]*")


def json_file(path: Path) -> Iterator[Raw]:
    """A .json file: an array of objects (`place` from 0), or JSON lines under another name (line numbers from 1)."""
    with opened(path) as file:
        head = file.read(SNIFF)
    _check_start(head, path)
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"["):
        yield from json_array(path)
        return
    first, newline, _ = head.partition(b"\n")
    if newline and first.rstrip() and parse_line(1, first).row is None and head.startswith(b"{"):
        second = head.split(b"\n", 2)[1].strip()
        if not second.startswith(b"{"):
            raise RecordError(
                "is one JSON object over several lines, not rows.",
                where=str(path),
                remedy="Save the rows as an array ([{...}, {...}]) or as JSON lines.",
            )
    yield from json_lines(path)


def is_array(path: Path) -> bool:
    """Whether a JSON file begins with a bracket, so that its rows are counted from 0 instead of by lines."""
    with opened(path) as file:
        return file.read(SNIFF).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def json_array(path: Path) -> Iterator[Raw]:
    """The elements of a JSON array, decoded from chunks as they come; `place` from 0."""
    with opened(path) as file:
        # utf-8-sig drops a byte-order mark; escaped bytes end up as surrogates, which the fields refuse row by row
        stream = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        yield from _elements(stream, path)


def _elements(stream: io.TextIOBase, path: Path) -> Iterator[Raw]:
    decoder = json.JSONDecoder()
    buffer, at, index, ended = "", 0, 0, False

    def more(least: int = 1) -> None:
        nonlocal buffer, at, ended
        new = stream.read(max(CHUNK, least))
        ended = not new
        buffer, at = buffer[at:] + new, 0

    def skip_space() -> str:
        nonlocal at
        while True:
            match = _SPACE.match(buffer, at)
            at = match.end() if match else at
            if at < len(buffer) or ended:
                return buffer[at : at + 1]
            more()

    def broken(why: str) -> RecordError:
        return RecordError(
            f"the array is not valid JSON from here on ({why}); rows after the damage cannot be told apart.",
            where=f"{path}[{index}]",
            remedy="Mend the file, or save the rows as JSON lines, where a bad line spoils only itself.",
        )

    if skip_space() != "[":
        raise broken('no "["')
    at += 1
    if skip_space() == "]":
        at += 1
    else:
        while True:
            skip_space()
            try:
                element, end = decoder.raw_decode(buffer, at)
                if end == len(buffer) and not ended:  # a number at the very end may go on in the next chunk
                    more()
                    continue
            except (ValueError, RecursionError) as error:
                if ended or not _may_be_cut(error, buffer):
                    raise broken(str(error).split(":")[0]) from None
                if len(buffer) - at > MAX_ROW:
                    raise broken(f"one element is longer than {MAX_ROW >> 20} MiB") from None
                more(len(buffer) - at)
                continue
            at = end
            if isinstance(element, dict):
                yield Raw(index, element)
            else:
                yield Raw(index, error="expected an object in the array.", text=json.dumps(element))
            index += 1
            separator = skip_space()
            if separator not in (",", "]"):
                raise broken('no "," or "]"')
            at += 1
            if separator == "]":
                break
    if skip_space():
        raise broken('text after the closing "]"')


def _may_be_cut(error: Exception, buffer: str) -> bool:
    """Whether a decoding error may only mean that the element goes on in the next chunk."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos >= len(buffer) - 12


# --- CSV ----------------------------------------------------------------------------------------------------------


def csv_rows(path: Path) -> Iterator[Raw]:
    """Rows of a CSV or TSV file as {column: cell}; `place` counts the header as row 1, as spreadsheets do.

    An empty cell of an optional column counts as absent. A cell that holds a JSON list of messages is decoded.
    """
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    csv.field_size_limit(MAX_ROW)
    with opened(path) as file:
        _check_start(file.read(64), path)
        file.seek(0)
        stream = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        lines: list[str] = []  # the lines of the row being read, kept for the quarantine
        reader = csv.reader(_kept(stream, lines), delimiter=delimiter, strict=True)
        header: list[str] = []
        for number in itertools.count(1):
            lines.clear()
            try:
                cells = next(reader, None)
            except csv.Error as error:
                if number == 1 or "unexpected end" in str(error):
                    why = "a quotation mark is never closed" if number > 1 else str(error)
                    reason = f"the CSV cannot be parted into rows from here on ({why})."
                    raise RecordError(reason, where=f"{path}:{number}", remedy="Mend the quotation marks.") from None
                yield Raw(number, error=f"the row is not valid CSV ({error}).", text=_verbatim(lines))
                continue
            if cells is None:
                return
            if number == 1:
                header = _header(cells, path)
            elif not any(cells):
                yield Raw(number)
            elif len(cells) != len(header):
                reason = f"the row is not valid CSV: {len(cells)} cells under {len(header)} columns."
                yield Raw(number, error=reason, text=_verbatim(lines))
            else:
                yield Raw(number, {name: _cell(cell) for name, cell in zip(header, cells, strict=True)})


def _kept(lines: Iterable[str], store: list[str]) -> Iterator[str]:
    for line in lines:
        store.append(line)
        yield line


def _verbatim(lines: list[str]) -> str:
    joined = "".join(lines).rstrip("\r\n")
    return joined.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _header(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise RecordError(f'the header names the column "{min(repeated)}" twice.', where=f"{path}:1")
    return names


def _cell(cell: str) -> Any:
    if cell.startswith(("[{", "{")):
        try:
            value = json.loads(cell)
        except (ValueError, RecursionError):
            return cell
        turns = value if isinstance(value, list) else [value]
        if turns and all(isinstance(t, dict) and ("role" in t or "from" in t) for t in turns):
            return value
    return cell


# --- Parquet and Arrow --------------------------------------------------------------------------------------------


def parquet_rows(path: Path) -> Iterator[Raw]:
    """Rows of a Parquet file, read in small batches; `place` from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            yield from _batches(file.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise _not_arrow(path, "Parquet", error) from None


def arrow_rows(path: Path) -> Iterator[Raw]:
    """Rows of an Arrow file as `datasets` saves them (a stream) or of the random-access kind; `place` from 1."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            is_file = bytes(file.read(6)) == b"ARROW1"
            file.seek(0)
            if is_file:
                table = pa.ipc.open_file(file)
                batches: Iterator[Any] = (table.get_batch(i) for i in range(table.num_record_batches))
            else:
                batches = iter(pa.ipc.open_stream(file))
            yield from _batches(b.slice(i, BATCH_ROWS) for b in batches for i in range(0, b.num_rows, BATCH_ROWS))
    except (pa.ArrowException, OSError) as error:
        raise _not_arrow(path, "Arrow", error) from None


def _batches(batches: Iterator[Any]) -> Iterator[Raw]:
    number = 0
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            yield from (_single(batch.slice(i, 1), number + i + 1) for i in range(batch.num_rows))
        else:
            yield from (Raw(number + i, row) for i, row in enumerate(rows, 1))
        number += batch.num_rows


def _single(batch: Any, number: int) -> Raw:
    try:
        return Raw(number, batch.to_pylist()[0])
    except UnicodeDecodeError as error:
        reason = f"the row is not valid UTF-8 (byte 0x{error.object[error.start]:02x})."
        return Raw(number, error=reason, text=error.object.decode("utf-8", "backslashreplace"))


def _not_arrow(path: Path, what: str, error: Exception) -> RecordError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return RecordError(f"is not a readable {what} file ({reason}).", where=str(path))


READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_file,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
}
ZIPPABLE = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")


def extension(path: Path) -> str:
    """The ending that says how to read the file (`.gz` aside), or an empty string where there is no reader for it."""
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        return suffixes[-2] if len(suffixes) > 1 and suffixes[-2] in ZIPPABLE else ""
    return suffixes[-1] if suffixes and suffixes[-1] in READERS else ""

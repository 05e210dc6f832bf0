"""Any file of a drop as an iterator of records: decides how to read it by its name and its first bytes."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from dpo_pipeline.annotations.completing import filled_down, with_sheet_name
from dpo_pipeline.annotations.csv_rows import read_csv
from dpo_pipeline.annotations.decoding import BOM, decode
from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.encodings import as_utf8
from dpo_pipeline.annotations.json_records import Entry, read_json_lines, read_json_values
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Unusable
from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.annotations.sheets import read_parquet, read_sheet, sheet_names
from dpo_pipeline.annotations.sources import Source
from dpo_pipeline.annotations.streams import Bounded, Peeked
from dpo_pipeline.annotations.wrapped import wrapper_of

EXCERPT_CHARACTERS = 200
_NOT_THE_FILE = (
    (b"version https://git-lfs.github.com", "a Git LFS pointer instead of the file; fetch it with `git lfs pull`"),
    (b"<!doctype html", "a web page instead of the file, such as that of a login; download it again"),
    (b"<html", "a web page instead of the file, such as that of a login; download it again"),
)
_PERSONAL = (
    r"worker|annotator|rater|labell?er|contributor|evaluator|reviewer|^expert(_?id|_?name)?$|judge$|^who$"
    r"|user_?id|user_?name|session|(completed|attempted|submitted|created|updated|reviewed)_?by|e-?mail"
    r"|_ip$|^ip_|city|region|country"
)
_KEY = re.compile(r"""\\*"([^"\\]{1,60})\\*"\s*:\s*|'([^'\\]{1,60})'\s*:\s*""")
_PIECE = re.compile(r"""(\\*["']).*?(?:(?<!\\)\1|\Z)|[^\[\]{}"'\\,\s]+|.""", re.DOTALL)
"""A string with its quotes, also one inside a string; a bracket; a bare word; anything else."""
_DEPTHS = {"[": 1, "{": 1, "]": -1, "}": -1}
_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.-]+|\b\d{1,3}(?:\.\d{1,3}){3}\b|(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{1,4}"
)


def tables_of(
    source: Source, settings: AnnotationSettings, rule: FileRule | None = None
) -> Iterator[tuple[str, Iterator[Entry]]]:
    """The tables a file holds, each as its name and its records: one, or for XLSX one per sheet.

    A sheet bears its name, but where that is an annotator's its place: names of people stay out of the tables. Each
    table must be read before the next is asked for. Nothing is raised: what cannot be read becomes one entry that holds
    the reason.

    Args:
        source: The file, or the archive's member.
        settings: Bounds of reading.
        rule: Says how its text is encoded, if it is text and no byte order mark tells otherwise, which row names the
            columns, and which cells hold what stands elsewhere.
    """
    if source.problem is not None:
        yield source.name, iter([(0, source.problem, b"")])
        return
    assert source.open is not None
    rule = rule or FileRule()
    try:
        with source.open() as stream:
            if source.kind != ".xlsx":
                entries = _entries(source.kind, stream, settings, rule)
                yield source.name, filled_down(entries, rule.fill_down) if rule.fill_down else entries
                return
            book, names = sheet_names(stream, settings)
            is_person = rule.mapping is not None and rule.mapping.annotator == rule.sheet_column is not None
            for place, name in enumerate(names, start=1):
                entries = read_sheet(book, name, header_row=rule.header_row)
                if rule.sheet_column is not None:
                    entries = with_sheet_name(entries, rule.sheet_column, name)
                yield (
                    f"{source.name}!{f'sheet {place}' if is_person else name}",
                    filled_down(entries, rule.fill_down) if rule.fill_down else entries,
                )
    except Unusable as problem:
        yield source.name, iter([(0, problem, b"")])


def _entries(kind: str, stream: Bounded, settings: AnnotationSettings, rule: FileRule) -> Iterator[Entry]:
    limit, peeked = settings.max_record_bytes, Peeked(stream)
    head = peeked.head(100).lstrip().lower()
    for start, what in _NOT_THE_FILE:
        if head.startswith(start):
            return iter([(0, Unusable(Reason.UNREADABLE_FILE, what), b"")])
    if kind == ".parquet":
        return read_parquet(peeked, settings)
    text = as_utf8(peeked, rule.encoding)
    if kind in {".csv", ".tsv"}:
        delimiter = "\t" if kind == ".tsv" else None
        return read_csv(text, max_record_bytes=limit, delimiter=delimiter, header_row=rule.header_row)
    return _json_entries(text, limit)


def _json_entries(stream: Bounded, limit: int) -> Iterator[Entry]:
    """JSON lines where the first line is a whole object, else the elements of one array or objects in a row.

    An array may have an object wrapped around it: `{"version": 2, "data": [...]}`.
    """
    peeked = Peeked(stream)
    head = peeked.head(min(limit, 1 << 20))
    if b"\r" in head and b"\n" not in head:
        # Lines of an old Macintosh. No text in JSON may hold a bare CR, so each one ends a line.
        peeked = Peeked(_LineEnds(peeked))
        head = peeked.head(min(limit, 1 << 20))
    if skip := wrapper_of(head.removeprefix(BOM)):
        yield from read_json_values(peeked, max_record_bytes=limit, skip=skip + len(head) - len(head.removeprefix(BOM)))
        return
    text = head.removeprefix(BOM).lstrip()
    read = read_json_values if text.startswith(b"[") or _is_spread(text) else read_json_lines
    yield from read(peeked, max_record_bytes=limit)


class _LineEnds(Bounded):
    """A stream with LF for every CR."""

    def __init__(self, stream: Bounded) -> None:
        self._inner = stream

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end.

        Raises:
            Unusable: If the stream is broken or over a bound.
        """
        return self._inner.read(size).replace(b"\r", b"\n")


def _is_spread(text: bytes) -> bool:
    """Whether an object spreads over lines: the first breaks where pretty-printing does, the second is no object."""
    first, _, rest = text.partition(b"\n")
    if not first.rstrip().endswith((b"{", b"[", b",")) or not rest.strip():
        return False
    return all(isinstance(decode(line), Unusable) for line in (first, rest.lstrip().partition(b"\n")[0]))


def excerpt_of(raw: Any, *, private: frozenset[str] = frozenset()) -> str:
    r"""At most 200 characters of a record as it came, without what names its annotator, unprintable characters escaped.

    >>> excerpt_of(b'{"worker_id": 7, "a": "caf\xe9\x00"}')
    '{"worker_id": <removed>, "a": "caf\\xe9\\x00"}'

    Args:
        raw: The record as bytes, as text, or as a decoded row.
        private: Further fields that name the annotator.
    """
    if isinstance(raw, (bytes, bytearray)):
        text = bytes(raw[: EXCERPT_CHARACTERS * 4]).decode("utf-8", "backslashreplace")
    elif isinstance(raw, str):
        text = raw[: EXCERPT_CHARACTERS * 4]
    else:
        text = json.dumps(_cut_short(raw), ensure_ascii=False, default=str)[: EXCERPT_CHARACTERS * 4]
    text = _ADDRESS.sub("<removed>", _without_people(text, _personal(private)))[:EXCERPT_CHARACTERS]
    return "".join(one if one.isprintable() else _escaped(one) for one in text)[:EXCERPT_CHARACTERS]


def weight_of(raw: Any) -> int:
    """About how many bytes a record holds."""
    if type(raw) is bytes or type(raw) is str:
        return len(raw)
    if isinstance(raw, (dict, list)):
        return sum(map(weight_of, raw.values() if isinstance(raw, dict) else raw))
    return 50


def _without_people(text: str, personal: re.Pattern[str]) -> str:
    """JSON, whole or cut short, without the values of the keys whose name tells that they name a person."""
    pieces, start = [], 0
    for key in _KEY.finditer(text):
        if key.start() >= start and personal.search(key[1] or key[2]):
            pieces += [text[start : key.end()], "<removed>"]
            start = _end_of_value(text, key.end())
    return "".join((*pieces, text[start:]))


def _end_of_value(text: str, start: int) -> int:
    """Where a value ends, with all that is nested in it; the end of the text where that cuts it short."""
    depth = 0
    for piece in _PIECE.finditer(text, start):
        depth += _DEPTHS.get(piece[0], 0)
        if depth < 0 or (depth == 0 and piece[0] == ","):
            return piece.start()
        if depth == 0 and not piece[0].isspace():
            return piece.end()
    return len(text)


@cache
def _personal(private: frozenset[str]) -> re.Pattern[str]:
    """Finds in a key that it names a person, by its words or because it is one of these."""
    own = "".join(f"|^{re.escape(name)}$" for name in sorted(private))
    return re.compile(_PERSONAL + own, re.IGNORECASE)


def _cut_short(raw: Any) -> Any:
    """Enough of a row to show, so that a huge one is not written out first."""
    if isinstance(raw, dict):
        return {str(name)[:60]: _cut_short(value) for name, value in list(raw.items())[:20]}
    if isinstance(raw, (list, tuple)):
        return [_cut_short(value) for value in raw[:20]]
    return raw[:EXCERPT_CHARACTERS] if isinstance(raw, str) else raw


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, carried along
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode() if character.isascii() else f"\\u{ord(character):04x}"

"""Rows that are one record: exports with one response a row, in which the rows of a prompt follow one another."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from dpo_pipeline.annotations.formats.kway import MAX_RESPONSES
from dpo_pipeline.annotations.json_records import Entry
from dpo_pipeline.annotations.reading import weight_of
from dpo_pipeline.annotations.rules import Rules


def joined(entries: Iterable[Entry], export: Any, rules: Rules) -> Iterable[Entry]:
    """The entries, those of one record put together where the format has several rows a record, as they are where not.

    A record of several rows is `{"rows": [...]}` and bears the number of the first; an entry that cannot be read ends
    it. At most as many rows are joined as may be compared, and no more bytes than a record may have.

    Args:
        entries: What was read.
        export: The format's module; its `joined_by(rules)` gives what tells of a row which record it belongs to.
        rules: The file's.
    """
    joined_by: Callable[[Rules], Callable[[Any], Any] | None] | None = getattr(export, "joined_by", None)
    key_of = None if joined_by is None else joined_by(rules)
    return entries if key_of is None else _runs(entries, key_of, rules.settings.max_record_bytes)


def _runs(entries: Iterable[Entry], key_of: Callable[[Any], Any], limit: int) -> Iterator[Entry]:
    run: list[Entry] = []
    key: Any = None
    size = 0
    for entry in entries:
        own = key_of(entry[1]) if type(entry[1]) is dict else None
        size += weight_of(entry[2])
        if run and (own is None or own != key or len(run) == MAX_RESPONSES or size > limit):
            yield _as_one(run)
            run, size = [], weight_of(entry[2])
        if own is None:
            yield entry
            size = 0
        else:
            run.append(entry)
            key = own
    if run:
        yield _as_one(run)


def _as_one(run: list[Entry]) -> Entry:
    raws = [raw for _, _, raw in run]
    raw = b"\n".join(raws) if all(type(one) is bytes for one in raws) else {"rows": raws}
    return run[0][0], {"rows": [value for _, value, _ in run]}, raw

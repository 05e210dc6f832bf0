"""The ledger: append-only, hash-chained, fsynced lines that say who tried to make what, from what, and how it ended.

A line is `{"seq", "time", "event", ..., "previous", "hash"}`; `hash` covers all the rest, `previous` is the hash of the
line before. Editing, dropping or reordering a line breaks the chain at a nameable place. A chain cut off at its end is
still whole, so the file `head` beside it says how long it is: that tells of an accident or a careless hand. Whoever can
write both files can cut both; only a copy of the head kept elsewhere (an earlier audit, a signature) tells of that.
Dagster and MLflow show the ledger; they are not evidence (both accept later edits).
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpo_pipeline.core.digests import canonical_json, digest_of_json
from dpo_pipeline.core.errors import LedgerError

GENESIS = "0" * 64
TAIL_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Head:
    """How long a ledger was at some time: its lines, and the hash of the last of them."""

    lines: int
    hash: str


class Ledger:
    """The ledger under one home.

    Args:
        path: The file `<home>/ledger/ledger.jsonl`; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head_path = path.with_name("head")

    def append(self, event: str, **fields: Any) -> Mapping[str, Any]:
        """Add one line, chained to the last, and return it once it is on disk. Safe across processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            last = _last_line(stream, self.path)
            self._refuse_cut(last)
            line = {
                "seq": last["seq"] + 1 if last else 0,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "event": event,
                **fields,
                "previous": last["hash"] if last else GENESIS,
            }
            line["hash"] = digest_of_json(line)
            stream.write(canonical_json(line).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
            self._write_head(Head(line["seq"] + 1, line["hash"]))
        return line

    def _refuse_cut(self, last: Mapping[str, Any] | None) -> None:
        """Never write over a loss: a ledger shorter than its head says must be restored first."""
        head, found = self.head(), last["seq"] + 1 if last else 0
        if head is not None and head.lines > found:
            raise LedgerError(
                f"{self.path} has {found} lines, its head speaks of {head.lines}",
                expected="every line ever acknowledged",
                do="Restore the ledger from a backup",
            )

    def _write_head(self, head: Head) -> None:
        """Atomic, and on disk before it takes the old one's place: else a power cut may leave a name without content.

        The folder is not synced: an older head is true as well, since it need only be part of the ledger.
        """
        aside = self.head_path.with_suffix(".new")
        with aside.open("w", encoding="utf-8") as stream:
            stream.write(canonical_json(asdict(head)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(self.head_path)

    def head(self) -> Head | None:
        """How long the ledger is by the file beside it; None where there is none.

        Raises:
            LedgerError: If the file is not a head.
        """
        try:
            values = json.loads(self.head_path.read_text(encoding="utf-8"))
            return Head(int(values["lines"]), str(values["hash"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise LedgerError(
                f"{self.head_path} is not the head of a ledger", expected='{"lines": 12, "hash": "..."}'
            ) from error

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Every line in order, without checking the chain; a torn last line, never acknowledged, is passed over.

        Raises:
            LedgerError: At a line that is not a JSON object with an event.
        """
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, start=1):
                if not text.endswith("\n"):
                    return
                try:
                    line = json.loads(text)
                except (ValueError, RecursionError) as error:
                    raise self._no_line(number, "is not JSON") from error
                if not isinstance(line, dict) or not isinstance(line.get("event"), str):
                    raise self._no_line(number, "is not an object with an event")
                yield line

    def _no_line(self, number: int, what: str) -> LedgerError:
        return LedgerError(
            f"{self.path} line {number} {what}",
            expected="one JSON object per line",
            do="Restore the ledger from a backup; it must never be edited",
        )

    def verify(self) -> list[str]:
        """One sentence per break in the chain, naming the line and both values; empty when it is whole."""
        try:
            return self._faults(list(self.lines()))
        except LedgerError as error:
            return [str(error)]

    def _faults(self, lines: Sequence[Mapping[str, Any]]) -> list[str]:
        faults, previous = [], GENESIS
        for number, line in enumerate(lines, start=1):
            body = {name: value for name, value in line.items() if name != "hash"}
            if (found := digest_of_json(body)) != line.get("hash"):
                faults.append(f"{self.path} line {number} hashes to {found}, it claims {line.get('hash')}")
            if line.get("previous") != previous:
                faults.append(
                    f"{self.path} line {number} follows {line.get('previous')}, the line before is {previous}"
                )
            if line.get("seq") != number - 1:
                faults.append(f"{self.path} line {number} has seq {line.get('seq')}, its place is {number - 1}")
            previous = line.get("hash")
        return faults + _cut(self.path, self.head(), lines)


def _cut(path: Path, head: Head | None, lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence if the ledger does not begin with what its head speaks of; the head may lag by a crash."""
    if head is None or head.lines == 0:
        return []
    if head.lines > len(lines):
        return [f"{path} has {len(lines)} lines, its head speaks of {head.lines}: it was cut off at its end"]
    found = lines[head.lines - 1].get("hash")
    if found != head.hash:
        return [f"{path} line {head.lines} has the hash {found}, the head says {head.hash}"]
    return []


def _tail(stream: Any, end: int) -> tuple[int, bytes, int]:
    """Where the file's last part begins, its bytes, and where its last whole line, which it holds in full, ends."""
    size = TAIL_BYTES
    while True:
        start = max(0, end - size)
        stream.seek(start)
        tail = stream.read()
        whole = tail.rfind(b"\n") + 1
        if start == 0 or b"\n" in tail[: max(0, whole - 1)]:
            return start, tail, whole
        size *= 2  # a line may be of any length: a started line names every drop, a failed one quotes its error


def _last_line(stream: Any, path: Path) -> Mapping[str, Any] | None:
    """The last whole line; a torn tail left by a crash is cut off, since it was never acknowledged."""
    stream.seek(0, os.SEEK_END)
    end = stream.tell()
    if end == 0:
        return None
    start, tail, whole = _tail(stream, end)
    if whole < len(tail):
        stream.truncate(start + whole)
        stream.seek(0, os.SEEK_END)
    lines = tail[:whole].splitlines()
    if not lines:
        return None
    try:
        return json.loads(lines[-1])
    except ValueError as error:
        raise LedgerError(
            f"the last line of {path} is not JSON",
            expected="one JSON object per line",
            do="Restore the ledger from a backup; it must never be edited",
        ) from error

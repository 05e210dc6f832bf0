"""The ledger: append-only, hash-chained, fsynced lines that say who tried to make what, from what, and how it ended.

A line is `{"seq", "time", "event", ..., "previous", "hash"}`; `hash` covers all the rest, `previous` is the hash of the
line before. Editing, dropping or reordering a line breaks the chain at a nameable place. Lines cut off at the end break
no chain, so `head.json` beside it says how far the ledger had come. Dagster and MLflow show this; they are not evidence
(both accept later edits).
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dpo_pipeline.core.digests import canonical_json, digest_of_json
from dpo_pipeline.core.errors import LedgerError

GENESIS = "0" * 64


class Ledger:
    """The ledger under one home.

    Args:
        path: The file `<home>/ledger/ledger.jsonl`; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.head_path = path.with_name("head.json")

    def append(self, event: str, **fields: Any) -> Mapping[str, Any]:
        """Add one line, chained to the last, and return it once it is on disk. Safe across processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            last = _last_line(stream, self.path)
            if fault := self._cut_off(last):
                raise LedgerError(fault, expected="every line ever acknowledged", do="Restore the ledger from a backup")
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
            self._write_head(line)
        return line

    def lines(self) -> Iterator[Mapping[str, Any]]:
        """Every line in order, without checking the chain; a torn last line, never acknowledged, is passed over.

        Raises:
            LedgerError: At a line that is not JSON.
        """
        if not self.path.exists():
            return
        with self.path.open(encoding="utf-8") as stream:
            for number, text in enumerate(stream, start=1):
                if not text.endswith("\n"):
                    return
                try:
                    yield json.loads(text)
                except ValueError as error:
                    raise LedgerError(
                        f"{self.path} line {number} is not JSON",
                        expected="one JSON object per line",
                        do="Restore the ledger from a backup; it must never be edited",
                    ) from error

    def verify(self) -> list[str]:
        """One sentence per break in the chain, naming the line and both values; empty when it is whole."""
        faults: list[str] = []
        previous, last = GENESIS, None
        for number, line in enumerate(self.lines(), start=1):
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
            last = line
        return faults + ([fault] if (fault := self._cut_off(last)) else [])

    def head(self) -> Mapping[str, Any] | None:
        """The newest line's `seq` and `hash` as written when it was acknowledged; None where nothing was yet."""
        try:
            return json.loads(self.head_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LedgerError(
                f"{self.head_path} is not JSON", expected='{"seq", "hash"}', do="Restore it from a backup"
            ) from error

    def _cut_off(self, last: Mapping[str, Any] | None) -> str | None:
        """A sentence if the head knows of more than the file holds.

        The other way round is no fault: a crash between line and head leaves the head one line behind.
        """
        head = self.head()
        if head is None:
            return None if last is None or last["seq"] == 0 else f"{self.head_path} is missing beside {self.path}"
        if last is None or last["seq"] < head["seq"]:
            ends = f"seq {last['seq']}, hash {last['hash']}" if last else "nothing"
            return f"{self.path} ends with {ends}; {self.head_path} says seq {head['seq']}, hash {head['hash']}"
        if last["seq"] == head["seq"] and last["hash"] != head["hash"]:
            return f"{self.path} ends with hash {last['hash']}; {self.head_path} says {head['hash']}"
        return None

    def _write_head(self, line: Mapping[str, Any]) -> None:
        """Replace the head in one step; under the ledger's lock, so never by two at once."""
        aside = self.head_path.with_suffix(".tmp")
        aside.write_text(canonical_json({"seq": line["seq"], "hash": line["hash"]}) + "\n", encoding="utf-8")
        aside.replace(self.head_path)


def _last_line(stream: Any, path: Path) -> Mapping[str, Any] | None:
    """The last whole line; a torn tail left by a crash is cut off, since it was never acknowledged."""
    stream.seek(0, os.SEEK_END)
    end = stream.tell()
    if end == 0:
        return None
    start = max(0, end - (1 << 20))
    stream.seek(start)
    tail = stream.read()
    whole = tail.rfind(b"\n") + 1
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

"""The ledger: append-only, hash-chained, fsynced lines that say who tried to make what, from what, and how it ended.

A line is `{"seq", "time", "event", ..., "previous", "hash"}`; `hash` covers all the rest, `previous` is the hash of the
line before. Editing, dropping or reordering a line breaks the chain at a nameable place. Dagster and MLflow show
this; they are not evidence (both accept later edits).
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

    def append(self, event: str, **fields: Any) -> Mapping[str, Any]:
        """Add one line, chained to the last, and return it once it is on disk. Safe across processes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            last = _last_line(stream, self.path)
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
        faults, previous = [], GENESIS
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
        return faults


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

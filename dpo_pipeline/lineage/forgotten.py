"""The check of what was taken back: nothing made since a tombstone may hold it; what was made before is named."""

from collections.abc import Iterator, Mapping

from dpo_pipeline.annotations.forgotten import Matcher
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.tombstones import LEARNERS, Tombstone, tombstones
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, ancestors
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.records import TABLES

NAME = "nothing made since a tombstone holds what it took back"
COLUMNS = ("file", "file_sha256", "record_number", "annotator", "reason")
SAID = ("prompt", "response_a", "response_b", "messages")
Holders = Mapping[str, int]
"""Rows that a tombstone took back, by the digest of the table that holds them."""


def check_forgotten(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether each table and model of a chain keeps to the tombstones older than it; notes name what is older."""
    stones = tombstones(home)
    looked = f"{len(stones)} tombstones, {sum(node.artifact.kind in TABLES for node in nodes.values())} tables"
    key = key_of(home)
    faults: list[str] = []
    notes: list[str] = []
    for stone in stones:
        holders = holders_of(stone, nodes, key)
        faults += _faults(stone, holders, nodes)
        notes += _notes(stone, holders, nodes)
    fingerprint = None if key is None else home.pseudonym_fingerprint()
    unread = [stone.number for stone in stones if stone.needs_key and stone.key != fingerprint]
    lines = ", ".join(str(number) for number in unread)
    lost = f"keys/pseudonym.key is not the one under which the tombstones on ledger lines {lines} were written"
    return Check(NAME, looked, tuple(faults), lost if unread else None, tuple(notes))


def holders_of(stone: Tombstone, nodes: Mapping[str, Node], key: bytes | None) -> dict[str, int]:
    """The tables of a chain that hold rows a tombstone took back, with their number."""
    matcher = Matcher(stone.forgotten, key)
    counts = {
        digest: rows_taken_back(node.artifact, matcher)
        for digest, node in nodes.items()
        if node.artifact.kind in TABLES
    }
    return {digest: count for digest, count in counts.items() if count}


def rows_taken_back(table: Artifact, matcher: Matcher) -> int:
    """How many rows of a drop's table are forgotten; rows booked as such hold nothing and do not count."""
    import pyarrow.parquet as pq

    wanted = COLUMNS + (SAID if matcher.forgotten.texts else ())
    with pq.ParquetFile(table.path / TABLES[table.kind]) as file:
        columns = [name for name in file.schema_arrow.names if name in wanted]
        rows = (row for batch in file.iter_batches(columns=columns) for row in batch.to_pylist())
        return sum(matcher.of_row(row) is not None for row in rows if row.get("reason") != Reason.FORGOTTEN.value)


def learned_behind(stone: Tombstone, holders: Holders, nodes: Mapping[str, Node]) -> list[Node]:
    """The checkpoints of a chain that had learned from it by then, or were in training and learned it after all."""
    found = []
    for digest, node in nodes.items():
        ended_after = node.attempt is not None and int(node.attempt["seq"]) + 1 > stone.number
        is_late = ended_after and node.artifact.kind.endswith("checkpoint") and set(ancestors(node)) & set(holders)
        if holders and (digest in stone.checkpoints or is_late):
            found.append(node)
    return found


def _faults(stone: Tombstone, holders: Holders, nodes: Mapping[str, Node]) -> Iterator[str]:
    where = f"tombstone on ledger line {stone.number} of {stone.time}"
    for digest, count in holders.items():
        node = nodes[digest]
        if _was_started_after(stone, node):
            yield f"{node.artifact.path}, read at {_started(node)}, holds {count} rows that the {where} took back"
    for node in nodes.values():
        if node.artifact.kind in LEARNERS and _was_started_after(stone, node):
            behind = sorted(set(ancestors(node)) & set(holders))
            yield from (
                f"{node.artifact.path}, made at {_started(node)}, rests on {nodes[digest].artifact.path}, which holds "
                f"{holders[digest]} rows that the {where} took back"
                for digest in behind
            )


def _notes(stone: Tombstone, holders: Holders, nodes: Mapping[str, Node]) -> Iterator[str]:
    if not holders:
        return
    held = ", ".join(f"{holders[digest]:,} rows of {nodes[digest].role}" for digest in holders)
    learned = ", ".join(
        f"{node.artifact.kind}/{short(node.artifact.path.name)}" for node in learned_behind(stone, holders, nodes)
    )
    yield (
        f"rests on what the tombstone on ledger line {stone.number} took back ({stone.what}; {stone.reason}): {held}; "
        f"learned from it: {learned or 'no checkpoint'}"
    )


def _was_started_after(stone: Tombstone, node: Node) -> bool:
    return node.started is not None and int(node.started["seq"]) + 1 > stone.number


def _started(node: Node) -> str:
    return str((node.started or {}).get("time"))


def key_of(home: Home) -> bytes | None:
    """The pseudonym key, if it is still there; never makes one."""
    path = home.root / "keys" / "pseudonym.key"
    return path.read_bytes() if path.exists() else None

"""Take an annotator, a record or a pair back: say what holds it, write a tombstone, mark what had learned from it.

A tombstone removes nothing by itself. The next reading of each drop it touches leaves the records out, so do all tables
and models made from there; what was made before stays as it is, content-addressed, and is named by every audit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.annotations.forgotten import (
    ANYBODY,
    Forgotten,
    place_of,
    said_in_row,
    text_digest,
    texts_in_row,
)
from dpo_pipeline.annotations.quoting import openings_of
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.tombstones import EVENT, Tombstone, stale_tables, tombstones
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import champion_digest
from dpo_pipeline.lineage import trace
from dpo_pipeline.lineage.records import TABLES
from dpo_pipeline.lineage.unusable import quoting_unusable, texts_of_unusable
from dpo_pipeline.lineage.witnesses import installed_views

PLACE = ["drop", "file", "file_sha256", "record_number"]
SAID = {"judgments": ["prompt", "response_a", "response_b", "annotator"], "demonstrations": ["messages"]}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a tombstone would say, and what holds it now.

    Attributes:
        what: What is forgotten, in words that name nobody.
        forgotten: The same, as readings match it.
        drops: Drops in whose tables some of it stands.
        traced: Every table and model that holds it.
    """

    what: str
    forgotten: Forgotten
    drops: tuple[str, ...]
    traced: trace.Traced

    @property
    def checkpoints(self) -> list[Artifact]:
        """The checkpoints that learned from it."""
        return trace.checkpoints_that_saw(self.traced)


def plan_annotator(home: Home, annotator: str) -> Plan:
    """Everything an annotator judged, named by pseudonym or by the platform's own id, be it usable or not.

    Raises:
        InputError: If nothing that was read is theirs, or the id stands for different people in different drops.
    """
    traced = trace.trace_annotator(home, annotator)
    counts: dict[str, set[str]] = {name: set() for name in traced.unusable}
    for table in home.all_made("judgments"):
        wanted = {"annotator": trace.names_of(home, annotator)}
        for row in trace.rows_where(table, TABLES["judgments"], ["annotator", "judgment_id"], wanted):
            counts.setdefault(row["annotator"], set()).add(row["judgment_id"])
    if len(counts) > 1:
        named = ", ".join(f"{name} ({len(ids):,} judgments)" for name, ids in sorted(counts.items()))
        raise InputError(
            f"that id stands for {len(counts)} annotators: {named}",
            expected="one annotator",
            do="Give the pseudonym of the one who is meant",
        )
    [pseudonym] = counts
    return Plan(f"annotator {pseudonym}", Forgotten(annotators=(pseudonym,)), _drops(home, traced.hits), traced)


def plan_record(home: Home, record: str) -> Plan:
    """One record of an export, `DROP/FILE:LINE`, wherever it is delivered again.

    Raises:
        InputError: If no table knows it, several drops do, or it is forgotten already.
    """
    traced, wanted = trace.trace_record(home, record), trace.record_filter(home, record)
    rows = [row for kind in TABLES for table in home.all_made(kind) for row in _read(table, wanted)]
    drops = sorted({row["drop"] for row in rows})
    if len(drops) > 1:
        raise InputError(f"{record} stands in {len(drops)} drops: {', '.join(drops)}", do="Say which: DROP/FILE:LINE")
    records = {place_of(row) for row in rows}
    if records <= {name for stone in tombstones(home) for name in stone.forgotten.records}:
        raise InputError(f"{record} is forgotten already", do="`dpo-pipeline lineage trace` says where it still stands")
    key = home.pseudonym_key()
    texts = {
        text_digest(said_in_row(row), key, by=row.get("annotator"))
        for row in rows
        if "prompt" in row or "messages" in row
    }
    openings = _openings(home, rows, traced, places=records)
    forgotten = Forgotten(records=tuple(sorted(records)), texts=tuple(sorted(texts)), openings=openings)
    drops = sorted({*drops, *_drops(home, traced.hits)})
    return Plan(
        f"record {rows[0]['drop']}/{rows[0]['file']}:{rows[0]['record_number']}", forgotten, tuple(drops), traced
    )


def plan_pair(home: Home, pair: str) -> Plan:
    """A prompt with two responses, whoever judged it and however often.

    Raises:
        InputError: If no pair table knows it.
    """
    traced, key = trace.trace_pair(home, pair), home.pseudonym_key()
    wanted = {"judgment_id": sorted(traced.judgments)}
    rows = [row for table in home.all_made("judgments") for row in _read(table, wanted)]
    texts = {text_digest(said_in_row(row), key, by=ANYBODY) for row in rows}
    forgotten = Forgotten(texts=tuple(sorted(texts)), openings=_openings(home, rows, traced))
    return Plan(f"pair {pair}", forgotten, _drops(home, traced.hits), traced)


def as_text(home: Home, plan: Plan) -> str:
    """What holds it, what a tombstone changes, and what it leaves."""
    champion = champion_digest(home)
    is_champions = any(found.path.name == champion for found in plan.checkpoints)
    advice = "Whether it stays is for people: `dpo-pipeline champion rollback` or `withdraw`."
    warning = [f"Today's champion learned from it. {advice}"]
    saw = [f"{found.kind}/{short(found.path.name)}" for found in plan.checkpoints]
    drops = ", ".join(plan.drops)
    return "\n".join(
        [
            trace.as_text(plan.traced),
            "",
            f"A tombstone leaves this out of drop {drops} and of every later delivery, from the next reading on.",
            f"Checkpoints that learned from it stay as they are and are marked: {', '.join(saw) or 'none'}.",
            *(warning if is_champions else []),
            f"The raw files of drop {drops} and the artifacts listed above keep it until a person deletes them:",
            "docs/forgetting.md says how, and what an audit says then.",
        ]
    )


def bury(home: Home, plan: Plan, *, person: str, reason: str, unspeakable: str = "") -> Tombstone:
    """Write the tombstone.

    Args:
        home: Whose ledger.
        plan: What is forgotten.
        person: Who says so.
        reason: Why, in words that name nobody.
        unspeakable: The platform's own id, which must not stand in the ledger.

    Raises:
        InputError: If the reason is empty, or the id stands in it.
    """
    if not reason.strip():
        raise InputError("no reason is given", expected="a sentence a reviewer understands", do="Give --reason")
    if (
        unspeakable
        and not plan.what.endswith(unspeakable)
        and unspeakable.casefold() in f"{reason} {person}".casefold()
    ):
        raise InputError(
            "the reason or the name of who says so holds the annotator's own id",
            expected="words that name nobody: the ledger is never rewritten",
            do="Refer to a ticket instead",
        )
    line = home.ledger.append(
        EVENT,
        person=person,
        reason=reason.strip(),
        what=plan.what,
        forgotten=plan.forgotten.model_dump(mode="json"),
        drops=list(plan.drops),
        checkpoints=sorted(found.path.name for found in plan.checkpoints),
        pseudonyms=home.pseudonym_fingerprint(),
    )
    return next(stone for stone in tombstones(home) if stone.number == line["seq"] + 1)


def mark_forgotten(home: Home) -> list[str]:
    """Mark each attempt whose checkpoint learned from what is forgotten, in every view; what was newly marked."""
    marks = marks_of(home)
    said: list[str] = []
    for view in installed_views() if marks else ():
        mark = getattr(view, "mark", None)
        said += mark(home, marks) if mark is not None else []
    return said


def marks_of(home: Home) -> dict[str, str]:
    """Per attempt the sentence its views show."""
    stones = tombstones(home)
    marks: dict[str, str] = {}
    for line in home.finished() if stones else []:
        saw = [stone for stone in stones if line["artifact"] in stone.checkpoints]
        if "attempt" in line and (saw or _learned_late(home, stones, line)):
            named = "; ".join(f"tombstone on ledger line {stone.number} ({stone.what})" for stone in saw)
            late = "a tombstone written while it was in training"
            marks[line["attempt"]] = f"learned from records that are forgotten: {named or late}"
    return marks


def _learned_late(home: Home, stones: Sequence[Tombstone], line: Mapping[str, Any]) -> bool:
    """Whether a checkpoint finished after a tombstone, from tables read without it."""
    if line["seq"] + 1 < stones[0].number or not line["asset"].endswith("checkpoint"):
        return False
    try:
        return any(stale_tables(home, home.store.get(line["asset"], line["artifact"])))
    except ArtifactError:
        return False


def _openings(
    home: Home, rows: Iterable[Mapping[str, Any]], traced: trace.Traced, *, places: Iterable[str] = ()
) -> tuple[str, ...]:
    """How what is forgotten begins, text by text; tables whose unusable records quote it are added to what holds it.

    Args:
        home: Whose key and raw files are used.
        rows: Rows of judgments and demonstrations that are forgotten.
        traced: Is given the tables.
        places: Records that are forgotten, usable or not.
    """
    texts = [text for row in rows if "prompt" in row or "messages" in row for text in texts_in_row(row)]
    openings = openings_of([*texts, *texts_of_unusable(home, places)], home.pseudonym_key())
    known = {hit.artifact.digest for hit in traced.hits}
    for found in quoting_unusable(home, openings):
        if found.table.digest not in known:
            traced.hits.append(trace.Hit(found.table, f"may quote it: {found.in_words(found.reasons)}"))
    return tuple(sorted(openings))


def _read(table: Artifact, wanted: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    columns = [*PLACE, *SAID.get(table.kind, ["reason"])]
    for row in trace.rows_where(table, TABLES[table.kind], columns, wanted):
        if row.get("reason") != Reason.FORGOTTEN.value:
            yield row


def _drops(home: Home, hits: Sequence[trace.Hit]) -> tuple[str, ...]:
    """The drops of the tables that hold it, and those that cannot be asked because a table of theirs is gone."""
    found = {str(hit.artifact.manifest["settings"]["drop"]) for hit in hits if hit.artifact.kind in TABLES}
    gone = {
        str(line["partition"])
        for line in home.finished()
        if line["asset"] in TABLES and not home.store.path_of(line["asset"], line["artifact"]).is_dir()
    }
    return tuple(sorted(found | gone))

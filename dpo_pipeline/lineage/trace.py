"""Forward from an annotator, a record or a pair: every table and checkpoint that holds it, or why it was left out."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.records import TABLES
from dpo_pipeline.lineage.unusable import annotators_in_unusable

MADE_FROM_TABLES = (
    "pair_sketches",
    "annotator_report",
    "sft_checkpoint",
    "reference_logprobs",
    "dpo_checkpoint",
    "sweep_point",
    "evaluation_report",
    "release",
)
"""What holds texts or figures of a table's rows, or learned from them, each after what it may be made from."""
LEARNERS = frozenset({"sft_checkpoint", "dpo_checkpoint", "sweep_point"})


@dataclass(frozen=True, slots=True)
class Hit:
    """One artifact that holds what is traced.

    Attributes:
        artifact: The table or checkpoint.
        found: What of it is there, in words.
        learned: Whether a model was trained on it there.
    """

    artifact: Artifact
    found: str
    learned: bool = False


@dataclass(slots=True)
class Traced:
    """What is followed: judgment ids, demonstration ids, pair ids, pseudonyms found in records that cannot be used."""

    what: str
    judgments: set[str] = field(default_factory=set)
    demonstrations: set[str] = field(default_factory=set)
    pairs: set[str] = field(default_factory=set)
    unusable: set[str] = field(default_factory=set)
    hits: list[Hit] = field(default_factory=list)


def trace_annotator(home: Home, annotator: str) -> Traced:
    """Everything that rests on an annotator, named by pseudonym or by the platform's own id.

    Also the records of theirs that could not be used: no table says whose they were, so the raw files are read again.

    Raises:
        InputError: If nothing that was read is theirs.
    """
    names = names_of(home, annotator)
    traced = Traced(f"annotator {annotator}")
    for artifact in home.all_made("judgments"):
        _hit_rows(traced, artifact, {"annotator": names})
    for found in annotators_in_unusable(home, names, annotator):
        traced.hits.append(Hit(found.table, found.in_words(found.reasons)))
        traced.unusable.update(found.reasons)
    return _downstream(home, traced)


def trace_record(home: Home, record: str) -> Traced:
    """Everything that rests on one record, named `FILE:LINE` or `DROP/FILE:LINE`, also why it was rejected.

    Raises:
        InputError: If it is not of that form, or no table knows the record.
    """
    return _forward(home, f"record {record}", record_filter(home, record))


def record_filter(home: Home, record: str) -> dict[str, Sequence[Any]]:
    """The columns and values by which the tables know a record.

    Raises:
        InputError: If it is not of the form.
    """
    file, _, number = record.rpartition(":")
    if not file or not number.isdigit():
        raise InputError(
            f"{record!r} names no record", expected="FILE:LINE, as in export.jsonl:12", do="Count from 1; see the file"
        )
    drop, _, rest = file.partition("/")
    if drop in home.partitions("judgments"):
        return {"drop": [drop], "file": [rest], "record_number": [int(number)]}
    return {"file": [file], "record_number": [int(number)]}


def trace_pair(home: Home, pair: str) -> Traced:
    """Where a pair stands, with the judgments it rests on.

    Raises:
        InputError: If no pair table knows it.
    """
    traced = Traced(f"pair {pair}", pairs={pair})
    for artifact in home.all_made("preference_pairs"):
        for file in ("pairs.parquet", "excluded_pairs.parquet"):
            for row in rows_where(artifact, file, ["judgment_ids"], {"pair_id": [pair]}):
                traced.judgments.update(row["judgment_ids"])
    for artifact in home.all_made("judgments"):
        _hit_rows(traced, artifact, {"judgment_id": sorted(traced.judgments)})
    return _downstream(home, traced)


def checkpoints_that_saw(traced: Traced) -> list[Artifact]:
    """The checkpoints trained on what was traced."""
    return [hit.artifact for hit in traced.hits if hit.learned and hit.artifact.kind.endswith("checkpoint")]


def as_text(traced: Traced) -> str:
    """What was found, one artifact a line."""
    lines = [f"{traced.what}: {len(traced.judgments):,} judgments, {len(traced.pairs):,} pairs"]
    for hit in traced.hits:
        mark = "learned " if hit.learned else "        "
        lines.append(f"  {mark}{hit.artifact.kind:19} {short(hit.artifact.path.name)}  {hit.found}")
    return "\n".join(lines)


def names_of(home: Home, annotator: str) -> list[str]:
    """The pseudonyms an annotator may stand under: the name itself, and that of the platform's id in each namespace."""
    from dpo_pipeline.annotations.drops import load_rules
    from dpo_pipeline.annotations.tables import Pseudonyms

    found = {annotator}
    path = home.root / "keys" / "pseudonym.key"
    if path.exists():
        spaces = {""}
        for raw in home.all_made("raw_annotations"):
            rules = load_rules(raw.path / "files")
            spaces.update(rule.annotator_namespace for rule in (rules, *rules.files))
        pseudonyms = Pseudonyms(path.read_bytes())
        found.update(str(pseudonyms.of(space + annotator)) for space in spaces)
    return sorted(found)


def _forward(home: Home, what: str, wanted: Mapping[str, Sequence[Any]]) -> Traced:
    traced = Traced(what)
    for kind in TABLES:
        for artifact in home.all_made(kind):
            _hit_rows(traced, artifact, wanted)
    return _downstream(home, traced)


def _hit_rows(traced: Traced, artifact: Artifact, wanted: Mapping[str, Sequence[Any]]) -> None:
    columns = {
        "judgments": ["judgment_id", "drop", "file", "record_number"],
        "demonstrations": ["demonstration_id", "drop", "file", "record_number"],
        "rejected_records": ["reason", "detail", "drop", "file", "record_number"],
    }[artifact.kind]
    rows = list(rows_where(artifact, TABLES[artifact.kind], columns, wanted))
    if not rows:
        return
    traced.judgments.update(row["judgment_id"] for row in rows if "judgment_id" in row)
    traced.demonstrations.update(row["demonstration_id"] for row in rows if "demonstration_id" in row)
    places = Counter(f"{row['drop']}/{row['file']}" for row in rows)
    found = ", ".join(f"{count:,} in {place}" for place, count in sorted(places.items()))
    if artifact.kind == "rejected_records":
        found = "; ".join(f"rejected: {row['reason']} ({row['detail']})" for row in rows)
    traced.hits.append(Hit(artifact, found))


def _downstream(home: Home, traced: Traced) -> Traced:
    if not traced.hits and not traced.judgments:
        raise InputError(
            f"nothing that was read is of {traced.what}",
            expected="a pseudonym or platform id, FILE:LINE, or a pair id, of a drop taken in",
            do="`dpo-pipeline drop list` names the drops",
        )
    learned = {hit.artifact.path.name for hit in traced.hits if hit.artifact.kind == "demonstrations"}
    holding = {hit.artifact.path.name for hit in traced.hits}
    for artifact in reversed(home.all_made("preference_pairs")):
        if hit := _pairs_hit(traced, artifact):
            traced.hits.append(hit)
            holding.add(artifact.path.name)
            learned.update([artifact.path.name] if hit.learned else [])
    for kind in MADE_FROM_TABLES:
        for artifact in reversed(home.all_made(kind)):
            if hit := _made_from_hit(artifact, learned, holding):
                traced.hits.append(hit)
                holding.add(artifact.path.name)
                learned.update([artifact.path.name] if hit.learned else [])
    return traced


def _pairs_hit(traced: Traced, artifact: Artifact) -> Hit | None:
    """Which pairs of a table name one of the judgments, in train, held out, or left out for which reason."""
    found = Counter[str]()
    for file, column in (("pairs.parquet", "split"), ("excluded_pairs.parquet", "reason")):
        for pair, label in _naming(artifact, file, column, traced.judgments):
            traced.pairs.add(pair)
            found[label if column == "split" else f"left out: {label}"] += 1
    if not found:
        return None
    words = ", ".join(f"{count:,} {label.replace('_', ' ')}" for label, count in sorted(found.items()))
    return Hit(artifact, f"pairs: {words}", learned=found["train"] > 0)


def _made_from_hit(artifact: Artifact, learned: set[str], holding: set[str]) -> Hit | None:
    """An artifact made from one that holds it; SFT reads of a pair table only the split, unless told to learn it."""
    mine = [parent for parent in artifact.parents if parent.digest in holding]
    from_pairs = artifact.manifest["settings"].get("sft", {}).get("chosen_as_demonstrations", False)
    if artifact.kind == "sft_checkpoint" and not from_pairs:
        mine = [parent for parent in mine if parent.kind != "preference_pairs"]
    if not mine:
        return None
    roles = ", ".join(f"{parent.role} {short(parent.digest)}" for parent in mine)
    is_trained = artifact.kind in LEARNERS and any(p.digest in learned for p in mine)
    return Hit(artifact, f"made from {roles}", learned=is_trained)


def rows_where(
    artifact: Artifact, file: str, columns: Sequence[str], wanted: Mapping[str, Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Rows whose columns have one of the wanted values; row groups that cannot hold them are not read."""
    import pyarrow.parquet as pq

    if not all(wanted.values()):
        return
    filters = [(name, "in", list(values)) for name, values in wanted.items()]
    yield from pq.read_table(artifact.path / file, columns=list(columns), filters=filters).to_pylist()


def _naming(artifact: Artifact, file: str, column: str, judgments: set[str]) -> Iterator[tuple[str, str]]:
    """Pair id and label of each row that lists one of the judgments."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(artifact.path / file) as table:
        for batch in table.iter_batches(columns=["pair_id", column, "judgment_ids"]):
            lists = batch.column("judgment_ids")
            is_hit = pc.is_in(pc.list_flatten(lists), pa.array(sorted(judgments), pa.string()))
            rows = pc.unique(pc.list_parent_indices(lists).filter(is_hit))
            some = batch.take(rows)
            yield from zip(some.column("pair_id").to_pylist(), some.column(column).to_pylist(), strict=True)

"""Checks of the records: books re-added from the tables' own rows, rows read again from the raw files, annotators."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow.compute makes its functions when it is imported)

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, of_kind, parents_of_kind
from dpo_pipeline.lineage.checks import Check

TABLES = {
    "judgments": "judgments.parquet",
    "demonstrations": "demonstrations.parquet",
    "rejected_records": "rejected_records.parquet",
}


def check_books(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether every book balances, and says what counting the rows of the tables again says."""
    kept = [node for node in nodes.values() if node.artifact.books is not None]
    faults: list[str] = []
    for node in kept:
        books = node.artifact.books
        if books is not None and not books.is_balanced:
            faults.append(f"{node.artifact.path}: the books do not balance: {books.as_dict()}")
        faults += [f"{node.artifact.path}: {fault}" for fault in _recounted(node)]
    return Check("books balance and equal the rows", f"{len(kept)} books, rows counted again", tuple(faults))


def check_rows(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether reading the raw files again gives the very same tables, row ids included."""
    name = "rows are those of the raw files"
    read = [node for kind in TABLES for node in of_kind(nodes, kind)]
    looked = f"{len(read)} tables of {len({_raw_digest(node) for node in read})} drops read again"
    key = home.root / "keys" / "pseudonym.key"
    if read and not key.exists():
        return Check(name, looked, not_run=f"{key} is not there: without it no annotator's pseudonym can be made again")
    from dpo_pipeline.annotations import CODE_VERSION

    other = {node.artifact.manifest["code_version"] for node in read} - {CODE_VERSION}
    if other:
        return Check(name, looked, not_run=f"read by code version {', '.join(sorted(other))}, this is {CODE_VERSION}")
    named = {node.artifact.manifest["settings"].get("pseudonyms") for node in read} - {None}
    if named - {home.pseudonym_fingerprint() if read else ""}:
        return Check(name, looked, not_run=f"read with another pseudonym key than {key} (fingerprints differ)")
    faults: list[str] = []
    for nodes_of_drop in _by_raw(read):
        try:
            faults += _read_again(nodes_of_drop, key.read_bytes())
        except PipelineError as error:
            faults.append(f"{nodes_of_drop[0].artifact.path} cannot be read again: {error}")
    return Check(name, looked, tuple(faults))


def check_annotators(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether each pair's annotators are those of the judgments it names."""
    faults, count = [], 0
    for node in of_kind(nodes, "preference_pairs"):
        known: dict[str, str | None] = {}
        for parent in parents_of_kind(node, "judgments"):
            rows = _columns(parent, TABLES["judgments"], ["judgment_id", "annotator"])
            known.update(zip(rows["judgment_id"], rows["annotator"], strict=True))
        rows = _columns(node, "pairs.parquet", ["pair_id", "judgment_ids", "annotators"])
        for pair, ids, claimed in zip(*rows.values(), strict=True):
            count += 1
            lost = [name for name in ids if name not in known]
            faults += [f"{node.artifact.path} pair {pair} names judgment {name}, which no drop holds" for name in lost]
            found = sorted({name for one in ids if (name := known.get(one))})
            if found != claimed:
                faults.append(f"{node.artifact.path} pair {pair} lists annotators {claimed}, its judgments {found}")
    return Check("annotators are those of the judgments", f"{count:,} pairs", tuple(faults))


def _columns(node: Node, file: str, names: list[str]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(node.artifact.path / file, columns=names).to_pydict()


def _recounted(node: Node) -> Iterator[str]:
    recount = {
        "rejected_records": _recount_rejected,
        "demonstrations": _recount_demonstrations,
        "preference_pairs": _recount_pairs,
    }.get(node.artifact.kind)
    if recount is not None:
        for name, claimed, found in recount(node):
            if claimed != found:
                yield f"the books say {name} {claimed}, the rows {found}"


def _recount_rejected(node: Node) -> Iterator[tuple[str, Any, Any]]:
    books = node.artifact.books
    assert books is not None
    yield (
        "rejected",
        _nonzero(books.rejected),
        Counter(_columns(node, TABLES[node.artifact.kind], ["reason"])["reason"]),
    )


def _recount_demonstrations(node: Node) -> Iterator[tuple[str, Any, Any]]:
    books = node.artifact.books
    assert books is not None
    yield (
        "demonstrations",
        books.kept["demonstrations"],
        len(_columns(node, TABLES["demonstrations"], ["file"])["file"]),
    )


def _recount_pairs(node: Node) -> Iterator[tuple[str, Any, Any]]:
    """Judgments in = named by kept pairs + named by left-out pairs, by reason + skipped + merged."""
    books = node.artifact.books
    assert books is not None
    choices: dict[str, str] = {}
    rows_in = 0
    for parent in parents_of_kind(node, "judgments"):
        rows = _columns(parent, TABLES["judgments"], ["judgment_id", "choice"])
        choices.update(zip(rows["judgment_id"], rows["choice"], strict=True))
        rows_in += len(rows["choice"])
    kept = [name for ids in _columns(node, "pairs.parquet", ["judgment_ids"])["judgment_ids"] for name in ids]
    out = _columns(node, "excluded_pairs.parquet", ["reason", "judgment_ids"])
    rejected = Counter[str]()
    for reason, ids in zip(out["reason"], out["judgment_ids"], strict=True):
        rejected[reason] += len(ids)
    named = {*kept, *(name for ids in out["judgment_ids"] for name in ids)}
    rest = [choice for name, choice in choices.items() if name not in named]
    rejected.update(choice for choice in rest if choice in {"skipped", "not_rateable"})
    yield "in", books.records_in, rows_in
    yield "kept", books.kept_count, len(kept)
    yield "rejected", _nonzero(books.rejected), _nonzero(rejected)
    yield "merged", books.merged, rows_in - len(kept) - sum(rejected.values())


def _nonzero(counts: Counter[str]) -> Counter[str]:
    return Counter({name: count for name, count in counts.items() if count})


def _raw_digest(node: Node) -> str:
    return next((parent.artifact.path.name for parent in parents_of_kind(node, "raw_annotations")), "")


def _by_raw(nodes: list[Node]) -> list[list[Node]]:
    groups: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        groups.setdefault((_raw_digest(node), str(node.artifact.manifest["settings"])), []).append(node)
    return list(groups.values())


def _read_again(nodes: list[Node], key: bytes) -> Iterator[str]:
    """Read one drop into a temporary folder and compare every table that was published of it."""
    from dpo_pipeline.annotations.forgotten import SETTING, Forgotten
    from dpo_pipeline.annotations.read import read_drop
    from dpo_pipeline.annotations.settings import AnnotationSettings
    from dpo_pipeline.core.metrics import Quiet

    raw = parents_of_kind(nodes[0], "raw_annotations")
    settings = nodes[0].artifact.manifest["settings"]
    if not raw:
        yield f"{nodes[0].artifact.path} has no raw files behind it"
        return
    with tempfile.TemporaryDirectory(prefix="dpo-pipeline-audit-") as folder:
        out = {kind: Path(folder) / kind for kind in TABLES}
        for path in out.values():
            path.mkdir()
        books = read_drop(
            raw[0].artifact.path,
            drop=str(settings.get("drop")),
            settings=AnnotationSettings.parse(settings.get("annotations", {}), where="the manifest"),
            pseudonym_key=key,
            judgments=out["judgments"],
            rejected=out["rejected_records"],
            demonstrations=out["demonstrations"],
            reporter=Quiet(),
            forgotten=Forgotten.parse(settings.get(SETTING, {}), where="the manifest"),
        ).books
        for node in nodes:
            if node.artifact.manifest["books"] != books.as_dict():
                claimed = node.artifact.manifest["books"]
                yield f"{node.artifact.path} has the books {claimed}, reading the raw files again {books.as_dict()}"
            yield from _different(node, out[node.artifact.kind] / TABLES[node.artifact.kind])


def _different(node: Node, again: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    published = node.artifact.path / again.name
    if sha256_of_file(published) == sha256_of_file(again):
        return
    one, other = pq.read_table(published), pq.read_table(again)
    if one.equals(other):
        return  # the same rows, written by another version of pyarrow
    columns = [name for name in other.column_names if name not in one.column_names or one[name] != other[name]]
    yield f"{published} has {len(one)} rows, the raw files give {len(other)}; columns that differ: {', '.join(columns)}"

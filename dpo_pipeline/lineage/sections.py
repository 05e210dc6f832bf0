"""The sections of an audit: what each says of a chain, as plain values."""

from collections.abc import Mapping
from typing import Any

from dpo_pipeline.annotations.tombstones import tombstones
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, of_kind, parents_of_kind
from dpo_pipeline.lineage.forgotten import holders_of, key_of, learned_behind

MODELS = ("sft_checkpoint", "dpo_checkpoint")


def describe_node(node: Node) -> dict[str, Any]:
    """One artifact: who made it when, from what, with which settings, every file with its digest."""
    attempt, remarks = node.attempt or {}, (node.attempt or {}).get("remarks") or {}
    return {
        "role": node.role,
        "kind": node.artifact.kind,
        "digest": node.artifact.path.name,
        "made": attempt.get("time"),
        "attempt": attempt.get("attempt"),
        "tracking": attempt.get("tracking"),
        "seconds": remarks.get("seconds"),
        "resumed_from_step": remarks.get("resumed_from_step"),
        "settings": node.artifact.manifest["settings"],
        "code_version": node.artifact.manifest["code_version"],
        "counts": dict(node.artifact.counts),
        "files": node.artifact.manifest["files"],
        "parents": [{"role": p.role, "kind": p.kind, "digest": p.digest} for p in node.artifact.parents],
    }


def describe_drop(node: Node) -> dict[str, Any]:
    """The raw files of one drop as they arrived."""
    arrived = (node.attempt or {}).get("time")
    return {"drop": (node.attempt or {}).get("partition"), "arrived": arrived, "files": node.artifact.manifest["files"]}


def describe_books(node: Node) -> dict[str, Any]:
    """What became of every record."""
    return {"role": node.role, **node.artifact.manifest["books"]}


def describe_facts(node: Node) -> dict[str, Any]:
    """Counts and facts of a model or a report, and how the machine that made it was set."""
    facts = node.artifact.facts
    kept = {
        name: value for name, value in facts.items() if isinstance(value, str | int | float) and not _is_bound(name)
    }
    bounds = {name: [facts[f"{name}/low"], facts[f"{name}/high"]] for name in kept if f"{name}/low" in facts}
    remarks = (node.attempt or {}).get("remarks") or {}
    return {
        "role": node.role,
        "digest": node.artifact.path.name,
        "counts": dict(node.artifact.counts),
        "facts": kept,
        "intervals": bounds,
        "seeds": {name: value for name, value in _flat(node.artifact.manifest["settings"]) if name.endswith("seed")},
        "remarks": {name: value for name, value in remarks.items() if isinstance(value, str | int | float)},
        "speeds": [[step, speed] for step, speed in zip(*_speeds(remarks), strict=True)],
    }


def _speeds(remarks: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Steps of a training and its tokens a second there, as its attempt remarked them."""
    speeds = remarks.get("speeds") or {}
    return speeds.get("step", []), speeds.get("tokens_per_second", [])


def describe_annotators(nodes: Mapping[str, Node]) -> list[dict[str, Any]]:
    """Per pseudonym the judgments behind the pairs, by the judgments' own rows (not by the lists in the pairs)."""
    found: dict[str, dict[str, Any]] = {}
    for pairs in of_kind(nodes, "preference_pairs"):
        try:
            whose = _whose(pairs)
            rows = _table(pairs, "pairs.parquet", ["judgment_ids", "split"])
        except (OSError, ValueError, KeyError):
            continue  # `check_files` names it
        for row in rows:
            judged = [name for one in row["judgment_ids"] if (name := whose.get(one))]
            for name in judged:
                counts = found.setdefault(name, {"train": 0, "held_out": 0, "judgments": 0})
                counts["judgments"] += 1
            for name in set(judged):
                found[name][row["split"]] = found[name].get(row["split"], 0) + 1
    total = sum(counts["judgments"] for counts in found.values())
    ordered = sorted(found.items(), key=lambda item: (-item[1]["judgments"], item[0]))
    return [{"annotator": name, **counts, "share": counts["judgments"] / total} for name, counts in ordered]


def describe_forgotten(home: Home, nodes: Mapping[str, Node]) -> list[dict[str, Any]]:
    """Each tombstone in the ledger, and which artifacts of this chain still hold what it took back."""
    said = []
    for stone in tombstones(home):
        try:
            holders = holders_of(stone, nodes, key_of(home))
        except (OSError, ValueError, KeyError):
            holders = {}  # `check_files` names it
        said.append(
            {
                "line": stone.number,
                "time": stone.time,
                "what": stone.what,
                "reason": stone.reason,
                "person": stone.person,
                "holders": [{"role": nodes[digest].role, "digest": digest, "rows": n} for digest, n in holders.items()],
                "learned": [
                    {"role": node.role, "digest": node.artifact.path.name}
                    for node in learned_behind(stone, holders, nodes)
                ],
            }
        )
    return said


def describe_making(nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Each state of code and environment once, in the order of the chain, and those of this audit."""
    return {
        "code": _distinct(nodes, "code"),
        "environment": _distinct(nodes, "environment"),
        "here": {"code": describe_code(), "environment": describe_environment()},
    }


def _distinct(nodes: Mapping[str, Node], name: str) -> list[Any]:
    states: list[Any] = []
    for node in nodes.values():
        state = (node.started or {}).get(name)
        if state is not None and state not in states:
            states.append(state)
    return states


def _whose(pairs: Node) -> dict[str, str | None]:
    """Each judgment's annotator, by the judgments the pairs were made from."""
    whose: dict[str, str | None] = {}
    for parent in parents_of_kind(pairs, "judgments"):
        rows = _table(parent, "judgments.parquet", ["judgment_id", "annotator"])
        whose.update((row["judgment_id"], row["annotator"]) for row in rows)
    return whose


def _table(node: Node, file: str, columns: list[str]) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return pq.read_table(node.artifact.path / file, columns=columns).to_pylist()


def _is_bound(name: str) -> bool:
    return name.endswith(("/low", "/high"))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found

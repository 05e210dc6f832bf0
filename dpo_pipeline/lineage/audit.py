"""The audit as plain values: verdict first, then all a reviewer asks about the subject; the page is made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dpo_pipeline
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, ancestors, chain_of, of_kind
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.verify import verdict

SCHEMA = "dpo-pipeline/audit/1"


def describe_audit(home: Home, subject: str, checks: Sequence[Check]) -> dict[str, Any]:
    """JSON-ready; names, digests and numbers only, no text of any annotation.

    Args:
        home: Where the chain lies.
        subject: What was verified.
        checks: What `verify` answered.
    """
    audit: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": verdict(checks),
        "subject": subject,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": f"dpo-pipeline {dpo_pipeline.__version__}",
        "checks": [{**asdict(check), "outcome": check.outcome} for check in checks],
        "ledger": None,
        "chain": [],
    }
    if (
        len(checks) == 1 and checks[0].faults
    ):  # the ledger could not be read, so nothing is claimed that could be described
        return audit
    root = chain_of(home, subject)
    nodes = ancestors(root)
    head = home.ledger.head()
    audit |= {
        "ledger": None if head is None else asdict(head),
        "artifact": f"{root.artifact.kind}/{root.artifact.path.name}",
        "chain": [_node(node) for node in nodes.values()],
        "data": [_raw(node) for node in of_kind(nodes, "raw_annotations")],
        "books": [_books(node) for node in nodes.values() if node.artifact.books is not None],
        "annotators": _annotators(nodes),
        "code": _distinct(nodes, "code"),
        "environment": _distinct(nodes, "environment"),
        "here": {"code": describe_code(), "environment": describe_environment()},
        "training": [_facts(node) for node in nodes.values() if node.artifact.kind.endswith("checkpoint")],
        "evaluation": [_facts(node) for node in of_kind(nodes, "evaluation_report")],
    }
    return audit


def _node(node: Node) -> dict[str, Any]:
    attempt = node.attempt or {}
    return {
        "role": node.role,
        "kind": node.artifact.kind,
        "digest": node.artifact.path.name,
        "made": attempt.get("time"),
        "attempt": attempt.get("attempt"),
        "tracking": attempt.get("tracking"),
        "seconds": (attempt.get("remarks") or {}).get("seconds"),
        "resumed_from_step": (attempt.get("remarks") or {}).get("resumed_from_step"),
        "settings": node.artifact.manifest["settings"],
        "code_version": node.artifact.manifest["code_version"],
        "counts": dict(node.artifact.counts),
        "files": node.artifact.manifest["files"],
        "parents": [{"role": p.role, "kind": p.kind, "digest": p.digest} for p in node.artifact.parents],
    }


def _raw(node: Node) -> dict[str, Any]:
    arrived = (node.attempt or {}).get("time")
    return {"drop": (node.attempt or {}).get("partition"), "arrived": arrived, "files": node.artifact.manifest["files"]}


def _books(node: Node) -> dict[str, Any]:
    return {"role": node.role, **node.artifact.manifest["books"]}


def _facts(node: Node) -> dict[str, Any]:
    kept = {name: value for name, value in node.artifact.facts.items() if isinstance(value, str | int | float)}
    return {"role": node.role, "digest": node.artifact.path.name, "counts": dict(node.artifact.counts), "facts": kept}


def _annotators(nodes: Mapping[str, Node]) -> list[dict[str, Any]]:
    """Per pseudonym its training and held-out pairs, most first."""
    import pyarrow.parquet as pq

    found: dict[str, dict[str, int]] = {}
    for node in of_kind(nodes, "preference_pairs"):
        try:
            rows = pq.read_table(node.artifact.path / "pairs.parquet", columns=["annotators", "split"]).to_pylist()
        except (OSError, ValueError):
            continue  # `check_files` names it
        for row in rows:
            for name in row["annotators"]:
                counts = found.setdefault(name, {"train": 0, "held_out": 0})
                counts[row["split"]] = counts.get(row["split"], 0) + 1
    ordered = sorted(found.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return [{"annotator": name, **counts} for name, counts in ordered]


def _distinct(nodes: Mapping[str, Node], name: str) -> list[Any]:
    """Each state of code or environment once, in the order of the chain."""
    states: list[Any] = []
    for node in nodes.values():
        state = (node.started or {}).get(name)
        if state is not None and state not in states:
            states.append(state)
    return states

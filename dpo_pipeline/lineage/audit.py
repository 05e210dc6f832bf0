"""The audit as plain values: verdict first, then all a reviewer asks about the subject; the page is made from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import dpo_pipeline
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import promotions
from dpo_pipeline.lineage import sections
from dpo_pipeline.lineage.chain import ancestors, chains_of, of_kind, with_rejected
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.verify import verdict

SCHEMA = "dpo-pipeline/audit/2"


def describe_audit(home: Home, subject: str, checks: Sequence[Check]) -> dict[str, Any]:
    """JSON-ready; names, digests and numbers only, no text of any annotation.

    Args:
        home: Where the chain lies.
        subject: What was verified.
        checks: What `verify` answered; empty where the chain is only shown.
    """
    audit: dict[str, Any] = {
        "schema": SCHEMA,
        "verdict": verdict(checks),
        "subject": subject,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": f"dpo-pipeline {dpo_pipeline.__version__}",
        "checks": [{**asdict(check), "outcome": check.outcome} for check in checks],
        "open_points": _open_points(checks),
        "ledger": None,
        "artifacts": [],
        "chain": [],
    }
    if (
        len(checks) == 1 and checks[0].faults
    ):  # the ledger could not be read: nothing is claimed that could be described
        return audit
    roots = chains_of(home, subject)
    nodes = with_rejected(home, ancestors(*roots))
    head = home.ledger.head()
    return audit | {
        "ledger": None if head is None else asdict(head),
        "artifacts": [f"{root.artifact.kind}/{root.artifact.path.name}" for root in roots],
        "chain": [sections.describe_node(node) for node in nodes.values()],
        "data": [sections.describe_drop(node) for node in of_kind(nodes, "raw_annotations")],
        "books": [sections.describe_books(node) for node in nodes.values() if node.artifact.books is not None],
        "annotators": sections.describe_annotators(nodes),
        "forgotten": sections.describe_forgotten(home, nodes),
        **sections.describe_making(nodes),
        "training": [sections.describe_facts(node) for node in nodes.values() if node.artifact.kind in sections.MODELS],
        "evaluation": [sections.describe_facts(node) for node in of_kind(nodes, "evaluation_report")],
        "promotions": _promotions(home, nodes),
    }


def _promotions(home: Home, nodes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The whole history, each change with whether the checkpoint it put in place is behind the subject."""
    try:
        history = promotions(home)
    except PipelineError:
        return []  # `check_promotions` names the line
    return [
        {
            "line": change.seq + 1,
            "time": change.time,
            "event": change.event,
            "champion": change.champion,
            "before": change.before,
            "reason": change.reason or str(change.verdict.get("reason", "")),
            "person": change.person,
            "mode": change.mode.value,
            "report": change.report,
            "is_here": change.champion in nodes,
        }
        for change in history
    ]


def _open_points(checks: Sequence[Check]) -> list[str]:
    """What a reader must know beside the faults: each check that did not run, and each note."""
    points = [f"not run: {check.name}: {check.not_run}" for check in checks if check.not_run]
    return points + [note for check in checks for note in check.notes]

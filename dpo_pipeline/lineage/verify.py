"""Re-prove a chain: the ledger's own chain, every file of every ancestor, every attempt's word against the disk."""

from collections.abc import Iterator

from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, ancestors, chain_of
from dpo_pipeline.lineage.checks import Check

NOT_RUN = (
    "signatures, MLflow and Dagster against the ledger, row ids from the raw files, leakage by near-duplicates, "
    "metrics from stored rows, rebuild"
)


def verify(home: Home, subject: str) -> list[Check]:
    """Run every check this version has on the chain behind `subject`.

    Raises:
        ArtifactError: If the subject or an ancestor is gone.
    """
    nodes = ancestors(chain_of(home, subject))
    files = sum(len(node.artifact.manifest["files"]) for node in nodes.values())
    return [
        Check("ledger is unbroken", f"{sum(1 for _ in home.ledger.lines()):,} lines", tuple(home.ledger.verify())),
        Check(
            "files are what was published",
            f"{files:,} files of {len(nodes)} artifacts",
            tuple(fault for node in nodes.values() for fault in node.artifact.verify()),
        ),
        Check("ledger knows every artifact", f"{len(nodes)} artifacts", tuple(_unknown(nodes))),
        Check("books balance", f"{len(nodes)} artifacts", tuple(_unbalanced(nodes))),
    ]


def verdict(checks: list[Check]) -> str:
    """FAIL if a check found a fault; else INCOMPLETE, since not every check of a full audit exists yet."""
    return "FAIL" if any(check.faults for check in checks) else "INCOMPLETE"


def as_text(checks: list[Check]) -> str:
    """The verdict first, then each check, then what was not run."""
    lines = [f"{verdict(checks)}\n"]
    for check in checks:
        lines.append(f"  {'FAULT' if check.faults else 'ok   '}  {check.name}  ({check.looked_at})")
        lines += [f"           {fault}" for fault in check.faults]
    return "\n".join([*lines, f"\n  not run: {NOT_RUN}"])


def _unknown(nodes: dict[str, Node]) -> Iterator[str]:
    for digest, node in nodes.items():
        if node.attempt is None:
            yield f"{node.artifact.path} is on disk but no finished attempt in the ledger made it"
        elif node.attempt["asset"] != node.artifact.kind:
            yield f"{digest} is a {node.artifact.kind}, the ledger calls it {node.attempt['asset']}"


def _unbalanced(nodes: dict[str, Node]) -> Iterator[str]:
    for node in nodes.values():
        books = node.artifact.books
        if books is not None and not books.is_balanced:
            yield f"{node.artifact.path}: {books.as_dict()}"

"""The chain behind an artifact: every ancestor once, the ledger's account of each, as a tree a person can read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home


@dataclass(frozen=True, slots=True)
class Node:
    """One artifact of a chain.

    Attributes:
        artifact: The published folder.
        role: What it is to the one that read it ("judgments/2026-05"); its kind for the subject itself.
        attempt: The ledger line of the attempt that first made it; None where the ledger knows of none.
        parents: The nodes it was made from, in the order they were read.
    """

    artifact: Artifact
    role: str
    attempt: Mapping[str, Any] | None
    parents: tuple["Node", ...]


def chain_of(home: Home, subject: str) -> Node:
    """The chain behind an asset's newest artifact, or behind `kind/digest` (a digest may be cut after 8 digits).

    Raises:
        ArtifactError: If there is no such artifact, or an ancestor is gone.
    """
    return _node(home, _find(home, subject), None, _makers(home), {})


def ancestors(node: Node) -> dict[str, Node]:
    """Every node of the chain once, by digest, the subject first."""
    found = {node.artifact.digest: node}
    for parent in node.parents:
        for digest, item in ancestors(parent).items():
            found.setdefault(digest, item)
    return found


def as_text(node: Node) -> str:
    """The chain as an indented tree; a node met again is named and not unfolded twice."""
    lines: list[str] = []
    _write(node, lines, "", "", set())
    return "\n".join(lines)


def _find(home: Home, subject: str) -> Artifact:
    kind, _, digest = subject.partition("/")
    if not digest:
        return home.latest(kind)
    folder = home.store.root / kind
    found = [path.name for path in folder.glob(f"{digest}*")] if len(digest) >= 8 and digest.isalnum() else []
    if len(found) != 1:
        raise ArtifactError(
            f"{subject} names {len(found)} artifacts",
            expected="an asset's name, or kind/digest with at least 8 digits",
            do=f"Look into {folder} for the digests there are",
        )
    return home.store.get(kind, found[0])


def _makers(home: Home) -> dict[str, Mapping[str, Any]]:
    makers: dict[str, Mapping[str, Any]] = {}
    for line in home.ledger.lines():
        if line["event"] == "finished":
            makers.setdefault(line["artifact"], line)
    return makers


def _node(
    home: Home, artifact: Artifact, role: str | None, makers: Mapping[str, Mapping[str, Any]], done: dict[str, Node]
) -> Node:
    digest = artifact.path.name  # the claimed one: what the parent's manifest says, not what is on disk
    if digest not in done:
        parents = tuple(
            _node(home, home.store.get(parent.kind, parent.digest), parent.role, makers, done)
            for parent in artifact.parents
        )
        done[digest] = Node(artifact, role or artifact.kind, makers.get(digest), parents)
    return done[digest]


def _write(node: Node, lines: list[str], lead: str, below: str, seen: set[str]) -> None:
    digest = node.artifact.path.name
    again = digest in seen and bool(node.parents)
    seen.add(digest)
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in list(node.artifact.counts.items())[:3])
    made = node.attempt["time"][:19].replace("T", " ") if node.attempt else "not in the ledger"
    lines.append(f"{lead}{node.role}  {short(digest)}  {made}  {counts}{'  (above)' if again else ''}")
    if again:
        return
    for place, parent in enumerate(node.parents):
        is_last = place == len(node.parents) - 1
        _write(parent, lines, below + ("└── " if is_last else "├── "), below + ("    " if is_last else "│   "), seen)

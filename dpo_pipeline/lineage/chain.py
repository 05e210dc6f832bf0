"""The chain behind an artifact: every ancestor once, the ledger's account of each, as a tree a person can read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dpo_pipeline.core.artifacts import Artifact, Recipe
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.subjects import find_all

REJECTED = "rejected_records"


@dataclass(frozen=True, slots=True)
class Node:
    """One artifact of a chain.

    Attributes:
        artifact: The published folder.
        role: What it is to the one that read it ("judgments/2026-05"); its kind for the subject itself.
        attempt: The ledger line that says it was first made; None where the ledger knows of none.
        parents: The nodes it was made from, in the order they were read.
        started: The ledger line that opened that attempt; None where there is none.
        missing: One sentence per parent that is claimed and cannot be read.
    """

    artifact: Artifact
    role: str
    attempt: Mapping[str, Any] | None
    parents: tuple["Node", ...]
    started: Mapping[str, Any] | None = None
    missing: tuple[str, ...] = ()


def chains_of(home: Home, subject: str) -> list[Node]:
    """The chains behind a subject: what the ledger and the manifests claim, followed to the raw files.

    One, except for a partitioned asset named without a drop: then one a drop, in order of arrival.

    Raises:
        ArtifactError: If nothing bears that name, or the subject itself cannot be read.
    """
    walk = _Walk.through(home)
    return [walk.node(artifact, None) for artifact in find_all(home, subject)]


def chain_of(home: Home, subject: str) -> Node:
    """The chain behind a subject that names one artifact.

    Raises:
        ArtifactError: As for `chains_of`, or if the subject names several.
    """
    found = chains_of(home, subject)
    if len(found) > 1:
        named = ", ".join(f"{node.artifact.kind}/{short(node.artifact.path.name)}" for node in found)
        raise ArtifactError(f"{subject} names {len(found)} artifacts: {named}", do="Give one drop: asset/drop")
    return found[0]


def ancestors(*roots: Node) -> dict[str, Node]:
    """Every node of the chains once, by claimed digest, the subjects first."""
    found: dict[str, Node] = {}
    waiting = list(reversed(roots))
    while waiting:
        item = waiting.pop()
        if found.setdefault(item.artifact.path.name, item) is item:
            waiting += reversed(item.parents)
    return {node.artifact.path.name: node for node in (*roots, *found.values())}


def with_rejected(home: Home, nodes: Mapping[str, Node]) -> dict[str, Node]:
    """The chain and, beside each drop's tables, the table of the records that were left out in the same reading.

    Nothing is made from it; but what was left out of a model belongs to what a reviewer is shown and proves.
    """
    walk, found = _Walk.through(home), dict(nodes)
    made = {line.get("recipe"): line for line in home.finished() if line.get("asset") == REJECTED}
    for digest, node in nodes.items():
        if node.artifact.kind not in {"judgments", "demonstrations"}:
            continue
        manifest = node.artifact.manifest
        recipe = Recipe(REJECTED, manifest["code_version"], manifest["settings"], node.artifact.parents)
        if (line := made.get(recipe.digest)) is None:
            continue
        role = f"{REJECTED}/{line.get('partition')}"
        try:
            beside = walk.node(home.store.get(REJECTED, str(line["artifact"])), role)
        except ArtifactError as error:
            found[digest] = replace(node, missing=(*node.missing, f"{role}, read together with {node.role}: {error}"))
        else:
            found.setdefault(beside.artifact.path.name, beside)
    return found


def as_text(node: Node) -> str:
    """The chain as an indented tree; a node met again is named and not unfolded twice."""
    lines: list[str] = []
    _write(node, lines, "", "", set())
    return "\n".join(lines)


@dataclass(slots=True)
class _Walk:
    """One way through the store, each artifact read once."""

    home: Home
    makers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    openings: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    done: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def through(cls, home: Home) -> "_Walk":
        walk = cls(home)
        for line in home.ledger.lines():
            if line["event"] == "started":
                walk.openings.setdefault(str(line.get("attempt")), line)
            elif line["event"] == "finished":
                walk.makers.setdefault(str(line.get("artifact")), line)
        return walk

    def node(self, artifact: Artifact, role: str | None) -> Node:
        digest = artifact.path.name  # the claimed one: what the parent's manifest says, not what is on disk
        if digest not in self.done:
            maker = self.makers.get(digest)
            opening = self.openings.get(str(maker.get("attempt"))) if maker else None
            parents, missing = [], []
            for parent in artifact.parents:
                try:
                    parents.append(self.node(self.home.store.get(parent.kind, parent.digest), parent.role))
                except ArtifactError as error:
                    missing.append(f"{parent.role}, an input of {artifact.kind} {short(digest)}: {error}")
            self.done[digest] = Node(artifact, role or artifact.kind, maker, tuple(parents), opening, tuple(missing))
        return self.done[digest]


def of_kind(nodes: Mapping[str, Node], kind: str) -> Iterator[Node]:
    """The nodes of one kind, in the order of the chain."""
    return (node for node in nodes.values() if node.artifact.kind == kind)


def parents_of_kind(node: Node, kind: str) -> list[Node]:
    """What a node was made from, of one kind, in the order read."""
    return [parent for parent in node.parents if parent.artifact.kind == kind]


def _write(node: Node, lines: list[str], lead: str, below: str, seen: set[str]) -> None:
    digest = node.artifact.path.name
    again = digest in seen and bool(node.parents)
    seen.add(digest)
    counts = ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in list(node.artifact.counts.items())[:3])
    made = str(node.attempt.get("time"))[:19].replace("T", " ") if node.attempt else "not in the ledger"
    lines.append(f"{lead}{node.role}  {short(digest)}  {made}  {counts}{'  (above)' if again else ''}")
    if again:
        return
    lines += [f"{below}!   {sentence}" for sentence in node.missing]
    for place, parent in enumerate(node.parents):
        is_last = place == len(node.parents) - 1
        _write(parent, lines, below + ("└── " if is_last else "├── "), below + ("    " if is_last else "│   "), seen)

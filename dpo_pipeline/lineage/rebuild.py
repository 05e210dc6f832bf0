"""Make a chain again from its raw files and compare: tables byte for byte, trainings weight for weight.

Each artifact is made again from the inputs it claims, into a temporary folder, and must get its own digest. So one that
differs is blamed itself, not what was made of it. Equality proves the most a machine can say. A difference is a fault
only where code, packages and device are those recorded; elsewhere it says nothing, and the check says which differ.
"""

import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dpo_pipeline.core.artifacts import Artifact, ArtifactStore, Outcome, Recipe
from dpo_pipeline.core.environment import describe_code, describe_environment
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.metrics import Aloud, Reporter
from dpo_pipeline.lineage.chain import Node
from dpo_pipeline.lineage.checks import Check
from dpo_pipeline.lineage.remaking import REMAKERS, TRAININGS, Inputs, code_version_of

Say = Callable[[str], None]


@dataclass(slots=True)
class Findings:
    """What one group of artifacts came to."""

    equal: int = 0
    faults: list[str] = field(default_factory=list)
    unproven: dict[str, list[str]] = field(default_factory=dict)
    last: str = ""

    def add(self, name: str, *, fault: str = "", unproven: str = "") -> None:
        """File what came of one artifact: it is equal, or a fault, or it could not be proven, for a reason."""
        self.last = fault or unproven or "equal"
        if fault:
            self.faults.append(fault)
        elif unproven:
            self.unproven.setdefault(unproven, []).append(name)
        else:
            self.equal += 1


def rebuild(home: Home, nodes: Mapping[str, Node], say: Say) -> list[Check]:
    """Make every table and every training of a chain again, inputs first.

    Args:
        home: Whose ledger and key are used; nothing is written into it.
        nodes: The chain.
        say: Hears how far it is.
    """
    tables, trainings = Findings(), Findings()
    again = [node for node in _inputs_first(nodes) if node.artifact.kind in REMAKERS]
    with tempfile.TemporaryDirectory(prefix="dpo-pipeline-rebuild-") as folder:
        for number, node in enumerate(again, start=1):
            findings = trainings if node.artifact.kind in TRAININGS else tables
            say(f"{number} of {len(again)}: {_name(node)}")
            started = time.monotonic()
            _compare(home, node, Path(folder), findings, Aloud(lambda sentence: say(f"    {sentence}")))
            say(f"  {findings.last} after {time.monotonic() - started:.1f} s")
    raw = sum(node.artifact.kind == "raw_annotations" for node in nodes.values())
    return [
        _check("tables come out again, byte for byte", f"from the raw files of {raw} drops", tables),
        _check("trainings come out again, weight for weight", "repeated on this machine", trainings),
    ]


def _check(name: str, how: str, findings: Findings) -> Check:
    waiting = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in findings.unproven.items())
    count = findings.equal + len(findings.faults) + sum(len(names) for names in findings.unproven.values())
    looked = f"{findings.equal} of {count} artifacts are equal, {how}"
    return Check(name, looked, tuple(findings.faults), waiting or None)


def _compare(home: Home, node: Node, folder: Path, findings: Findings, reporter: Reporter) -> None:
    """Make one artifact again and file what came of it."""
    if hindrance := _hindrance(node):
        findings.add(_name(node), unproven=hindrance)
        return
    manifest = node.artifact.manifest
    recipe = Recipe(node.artifact.kind, manifest["code_version"], manifest["settings"], node.artifact.parents)
    store = ArtifactStore(folder / node.artifact.path.name)
    try:
        with store.staging() as out, tempfile.TemporaryDirectory(dir=folder) as work:
            outcome = _remade(home, node, out, Path(work), reporter)
            made = store.publish(out, recipe, outcome)
    except Exception as error:  # noqa: BLE001 - an altered input may break any stage, and the rest must go on
        said = str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
        findings.add(_name(node), unproven=f"it cannot be made again here: {said}")
        return
    if made.digest == node.artifact.path.name:
        findings.add(_name(node))
        return
    said = f"{node.artifact.path} does not come out again: {'; '.join(_differences(node.artifact, made))}"
    unlike = _unlike(node)
    findings.add(_name(node), fault="" if unlike else said, unproven=f"{said}; that proves nothing, for {unlike}")


def _remade(home: Home, node: Node, out: Path, work: Path, reporter: Reporter) -> Outcome:
    inputs = Inputs(home, node, out, work, threads=_threads(node), reporter=reporter)
    return REMAKERS[node.artifact.kind](inputs)


def _hindrance(node: Node) -> str | None:
    """Why making it again cannot even be tried."""
    here, then = code_version_of(node.artifact.kind), node.artifact.manifest["code_version"]
    if here != then:
        return f"made by code version {then} of its room, this is {here}: check out {_commit(node)} to repeat it"
    device = str(((node.attempt or {}).get("remarks") or {}).get("device", ""))
    if node.artifact.kind in TRAININGS and "(cpu," not in device:
        return f"it was trained otherwise than on a CPU ({device or 'the ledger does not say on what'})"
    return None


def _unlike(node: Node) -> str:
    """What of code and packages is not as recorded, in words; empty where all of it is."""
    started = node.started or {}
    code, here = started.get("code") or {}, describe_code()
    versions, mine = (started.get("environment") or {}).get("versions") or {}, describe_environment()["versions"]
    found = [
        f"{name} was {then}, here it is {mine.get(name)}" for name, then in versions.items() if mine.get(name) != then
    ]
    if code.get("source_sha256") != here["source_sha256"]:
        found.append(f"the code was that of {_commit(node)}, here it is another")
    if not versions:
        found.append("the ledger does not say which packages it was made with")
    return "; ".join(found)


def _commit(node: Node) -> str:
    code = (node.started or {}).get("code") or {}
    commit = code.get("git_commit") or f"source {str(code.get('source_sha256'))[:12]}"
    return f"{commit}{' with changes' if code.get('git_dirty_sha256') else ''}"


def _threads(node: Node) -> int | None:
    """How many threads a training used: sums in another order are other sums."""
    device = str(((node.attempt or {}).get("remarks") or {}).get("device", ""))
    found = re.search(r"CPU with (\d+) thread", device)
    return int(found[1]) if found else None


def _differences(claimed: Artifact, made: Artifact) -> Iterator[str]:
    """Which files, counts or facts differ, with both values."""
    one = {entry["name"]: entry["sha256"] for entry in claimed.manifest["files"]}
    other = {entry["name"]: entry["sha256"] for entry in made.manifest["files"]}
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"{name} has sha256 {one.get(name, 'none')}, made again {other.get(name, 'none')}"
    for part in ("counts", "facts", "books"):
        if claimed.manifest[part] != made.manifest[part]:
            yield f"{part} are {claimed.manifest[part]}, made again {made.manifest[part]}"


def _inputs_first(nodes: Mapping[str, Node]) -> Sequence[Node]:
    """The nodes so that each stands after all that it was made from."""
    order: list[Node] = []
    done: set[str] = set()

    def visit(node: Node) -> None:
        if node.artifact.path.name in done:
            return
        done.add(node.artifact.path.name)
        for parent in node.parents:
            visit(parent)
        order.append(node)

    for node in nodes.values():
        visit(node)
    return order


def _name(node: Node) -> str:
    return f"{node.role} {node.artifact.path.name[:12]}"

"""Checks of the evidence itself: the ledger, the files, and whether ledger and manifests tell one story."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from dpo_pipeline.core.artifacts import Recipe
from dpo_pipeline.core.digests import canonical_json
from dpo_pipeline.core.errors import LedgerError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node
from dpo_pipeline.lineage.checks import Check

ENDS = {"finished", "failed", "killed"}


def check_ledger(home: Home) -> Check:
    """Whether the ledger's own chain is whole and as long as its head says."""
    name = "ledger is unbroken and not cut off"
    faults = tuple(home.ledger.verify())
    if faults:
        return Check(name, str(home.ledger.path), faults)
    count = sum(1 for _ in home.ledger.lines())
    head = home.ledger.head()
    missing = "there is no head file yet, so a ledger cut off at its end would look whole; the next attempt writes one"
    return Check(name, f"{count:,} lines", not_run=None if head or not count else missing)


def check_files(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether every file is there, is what was published, and no other lies beside it."""
    count = sum(len(node.artifact.manifest["files"]) for node in nodes.values())
    faults = [fault for node in nodes.values() for fault in (*node.missing, *node.artifact.verify(), *_links(node))]
    return Check("files are what was published", f"{count:,} files of {len(nodes)} artifacts", tuple(faults))


def check_attempts(home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether every artifact has an attempt that made it, and the ledger's words equal the manifest's, each field."""
    faults = [fault for digest, node in nodes.items() for fault in _attempt_faults(digest, node)]
    try:
        faults += _unpaired(home)
    except LedgerError as error:
        faults.append(str(error))
    return Check("ledger and manifests agree", f"{len(nodes)} artifacts, field by field", tuple(faults))


def check_environment(_home: Home, nodes: Mapping[str, Node]) -> Check:
    """Whether the code that made each artifact can still be had: it is this code, or a commit this repository has."""
    from dpo_pipeline.core.environment import commit_exists, describe_code

    here = describe_code()["source_sha256"]
    codes = {canonical_json(code): code for node in nodes.values() if (code := (node.started or {}).get("code"))}
    lost = [
        f"{code.get('git_commit') or 'no commit'}"
        + (f" with changes {str(code['git_dirty_sha256'])[:12]} that were never committed" if _is_dirty(code) else "")
        for code in codes.values()
        if code.get("source_sha256") != here and (_is_dirty(code) or not commit_exists(code.get("git_commit")))
    ]
    name, looked = "the code can be had again", f"{len(codes)} states of the code"
    if not codes:
        return Check(name, looked, not_run="the ledger says of no attempt which code it ran")
    return Check(name, looked, not_run=f"not found here: {'; '.join(lost)}" if lost else None)


def _is_dirty(code: Mapping[str, Any]) -> bool:
    return bool(code.get("git_dirty_sha256"))


def _links(node: Node) -> Iterator[str]:
    for path in sorted(node.artifact.path.rglob("*")):
        if path.is_symlink():
            yield f"{path} is a symbolic link to {path.readlink()}; artifacts hold plain files"


def _attempt_faults(digest: str, node: Node) -> Iterator[str]:
    artifact, end, start = node.artifact, node.attempt, node.started
    where = f"{artifact.kind} {digest}"
    if end is None:
        yield f"{artifact.path} is on disk but no finished attempt in the ledger made it"
        return
    if end.get("asset") != artifact.kind:
        yield f"{where}: the manifest says {artifact.kind}, the ledger {end.get('asset')}"
    if start is None:
        yield f"{where}: attempt {end.get('attempt')} finished but never started"
        return
    manifest = artifact.manifest
    recipe = Recipe(artifact.kind, manifest["code_version"], manifest["settings"], artifact.parents).digest
    claims = [
        ("settings", manifest["settings"], start.get("settings")),
        ("code_version", manifest["code_version"], start.get("code_version")),
        ("parents", manifest["parents"], start.get("parents")),
        ("recipe", recipe, start.get("recipe")),
        ("recipe", start.get("recipe"), end.get("recipe")),
        ("partition", start.get("partition"), end.get("partition")),
        ("asset", start.get("asset"), end.get("asset")),
    ]
    for name, one, other in claims:
        if one != other:
            yield f"{where}: {name} is {canonical_json(one)} in one place, {canonical_json(other)} in the ledger"


def _unpaired(home: Home) -> Iterator[str]:
    """Attempts that ended twice, or ended without having started, anywhere in the ledger."""
    started, ended = set[str](), Counter[str]()
    for line in home.ledger.lines():
        attempt = str(line.get("attempt"))
        if line["event"] == "started":
            started.add(attempt)
        elif line["event"] in ENDS:
            ended[attempt] += 1
            if attempt not in started:
                yield f"ledger line {line.get('seq', -1) + 1}: attempt {attempt} {line['event']} but never started"
    yield from (f"attempt {attempt} ended {count} times" for attempt, count in ended.items() if count > 1)

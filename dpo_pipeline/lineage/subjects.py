"""What a reviewer may call a thing: an asset, one drop of it, an alias, a digest or its beginning."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest

LEAST_DIGITS = 8
DIGEST = re.compile(rf"[0-9a-f]{{{LEAST_DIGITS},64}}")
CHAMPION = "champion"
SHOWN = 12
Claim = tuple[str, str]
"""Kind and digest, as the ledger or a folder's name claims them."""


def find_all(home: Home, subject: str) -> list[Artifact]:
    """The artifacts a subject names: several only for a partitioned asset. The first of `RESOLVERS` to know it decides.

    Raises:
        ArtifactError: If none does, a digest names several, or what is named is gone.
    """
    for resolve in RESOLVERS:
        if claims := resolve(home, subject):
            return [home.store.get(kind, digest) for kind, digest in claims]
    raise ArtifactError(
        f"{subject} names no artifact of {home.root}",
        expected=f"an asset ({_listed(_assets(home))}), asset/drop, `{CHAMPION}`, or a digest of at least "
        f"{LEAST_DIGITS} digits, with or without its kind before it",
        do="`dpo-pipeline lineage show` prints the digests behind the newest report",
    )


def _by_alias(home: Home, subject: str) -> Sequence[Claim]:
    """The champion of the ledger's own history; an alias in MLflow may have been moved by anybody."""
    digest = champion_digest(home) if subject == CHAMPION else None
    return [] if digest is None else [(CHAMPION_KIND, digest)]


def _by_asset(home: Home, subject: str) -> Sequence[Claim]:
    """The newest of an asset, of one drop of it, or of each drop in order of arrival."""
    asset, slash, drop = subject.partition("/")
    newest: dict[Any, Mapping[str, Any]] = {}
    for line in home.ledger.lines():
        is_asked_for = line.get("asset") == asset and (not slash or line.get("partition") == drop)
        if line["event"] == "finished" and is_asked_for and line.get("artifact"):
            newest[line.get("partition")] = line
    return [(asset, str(line["artifact"])) for line in newest.values()]


def _by_digest(home: Home, subject: str) -> Sequence[Claim]:
    """By a digest or its beginning, on disk or claimed: claimed and gone is another thing than never made."""
    kind, _, digest = subject.rpartition("/")
    if not DIGEST.fullmatch(digest) or kind.count("/") or ".." in kind:
        return []
    on_disk = {(path.parent.name, path.name) for path in home.store.root.glob(f"{kind or '[a-z]*'}/{digest}*")}
    claimed = {
        (str(line["asset"]), str(line["artifact"]))
        for line in home.ledger.lines()
        if line["event"] == "finished" and str(line.get("artifact")).startswith(digest) and kind in {"", line["asset"]}
    }
    found = sorted(on_disk | claimed)
    if len(found) > 1:
        named = _listed([f"{kind}/{short(digest)}" for kind, digest in found])
        raise ArtifactError(f"{subject} names {len(found)} artifacts: {named}", expected="one", do="Give more digits")
    return found


RESOLVERS: tuple[Callable[[Home, str], Sequence[Claim]], ...] = (_by_alias, _by_asset, _by_digest)
"""How a subject is understood, in turn."""


def _assets(home: Home) -> list[str]:
    """Every asset that was ever made, with its drops."""
    drops: dict[str, dict[Any, None]] = {}
    for line in home.finished():
        drops.setdefault(line["asset"], {})[line["partition"]] = None
    return [
        asset if None in found else f"{asset}/{{{_listed([str(drop) for drop in found], 4)}}}"
        for asset, found in drops.items()
    ]


def _listed(names: Sequence[str], most: int = SHOWN) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none was made yet") + more

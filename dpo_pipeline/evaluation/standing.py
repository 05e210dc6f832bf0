"""Who stands against whom: the newest report, the checkpoint it is about, today's champion, all by the ledger."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.digests import short
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest, promotions, rollbacks_of

CHAMPION_ROLE = "champion"
PAIRS_KIND = "preference_pairs"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the gate decides about.

    Attributes:
        report: The evaluation_report.
        challenger: Digest of the checkpoint it is about.
        champion: Digest of today's champion; None before the first promotion.
        scored: Digest of the champion the report holds up against the challenger; None: none.
        withdrawn: The reasons for which the challenger's place was taken away before, oldest first.
        has_champions_weights: Whether the challenger's weights and tokenizer are the champion's, to the byte: a drop of
            nothing but held-out pairs trains the same model again.
    """

    report: Artifact
    challenger: str
    champion: str | None
    scored: str | None
    withdrawn: tuple[str, ...]
    has_champions_weights: bool = False

    @property
    def models(self) -> dict[str, str]:
        """Digests of challenger and champion, if there is one."""
        return {"challenger": self.challenger, **({"champion": self.champion} if self.champion else {})}

    @property
    def is_champion(self) -> bool:
        """Whether the challenger is champion already."""
        return self.challenger == self.champion

    def assert_newest(self, checkpoint: Artifact, pairs: Artifact) -> None:
        """Refuse to decide on a report about another checkpoint or other pairs than the newest ones.

        Raises:
            ArtifactError: Naming both.
        """
        behind = {parent.role: parent.digest for parent in self.report.parents}
        for artifact in (checkpoint, pairs):
            if behind.get(artifact.kind) != artifact.digest:
                raise ArtifactError(
                    f"the report {self.report.digest} is about {artifact.kind} {behind.get(artifact.kind)}; "
                    f"the newest is {artifact.digest}",
                    expected="a report about the newest checkpoint and pairs",
                    do="Materialize evaluation_report again, then champion",
                )


def standing_of(home: Home, report: Artifact | None = None) -> Standing:
    """Who stands against whom in a report, the newest one unless another is given.

    Raises:
        ArtifactError: If there is no report, or it names no checkpoint.
    """
    report = report or home.latest("evaluation_report")
    parents = {parent.role: parent.digest for parent in report.parents if parent.kind == CHAMPION_KIND}
    challenger = parents.get(CHAMPION_KIND)
    if challenger is None:
        raise ArtifactError(
            f"the report {report.digest} names no {CHAMPION_KIND} among its inputs",
            do="Materialize evaluation_report again",
        )
    withdrawn = tuple(change.reason for change in rollbacks_of(home, challenger))
    champion = champion_digest(home)
    weights = _weights(home, challenger)
    is_same = champion is not None and bool(weights) and weights == _weights(home, champion)
    return Standing(report, challenger, champion, parents.get(CHAMPION_ROLE), withdrawn, is_same)


def _weights(home: Home, digest: str) -> dict[str, str]:
    """The digests of a checkpoint's model files by name."""
    files = home.store.get(CHAMPION_KIND, digest).manifest["files"]
    return {entry["name"]: entry["sha256"] for entry in files if entry["name"].startswith("model/")}


def opponent_of_newest(home: Home) -> Mapping[str, Artifact]:
    """Whom the newest checkpoint is compared with, by role: today's champion; none before the first promotion.

    If it is champion itself, the one it replaced: so report and decision stay those that made it champion, and a second
    run makes nothing new.

    Raises:
        ArtifactError: If that checkpoint is gone.
    """
    opponent, newest = champion_digest(home), home.latest_line(CHAMPION_KIND)
    if newest is not None and opponent == newest["artifact"]:
        opponent = next(
            change.before
            for change in reversed(promotions(home))
            if change.champion == opponent and change.is_promotion
        )
    return {} if opponent is None else {CHAMPION_ROLE: home.store.get(CHAMPION_KIND, opponent)}


def pairs_behind(home: Home, artifact: Artifact) -> Path | None:
    """The folder of the preference_pairs an artifact was made from; None if it is gone.

    Raises:
        ArtifactError: If the artifact names none among its inputs.
    """
    for parent in artifact.parents:
        if parent.kind == PAIRS_KIND:
            folder = home.store.path_of(parent.kind, parent.digest)
            return folder if folder.is_dir() else None
    raise ArtifactError(f"the {artifact.kind} {artifact.digest} names no {PAIRS_KIND} among its inputs")


def sft_behind(home: Home, checkpoint: Artifact) -> Artifact | None:
    """The sft_checkpoint a dpo_checkpoint was trained from; None if it is gone."""
    parents = [parent for parent in checkpoint.parents if parent.kind == "sft_checkpoint"]
    return _get(home, parents[0].kind, parents[0].digest) if parents else None


def learners(home: Home, standing: Standing) -> Iterator[tuple[str, Artifact | None]]:
    """The dpo_checkpoints of challenger and champion by name; None for one that is gone.

    A model that was begun from an earlier champion has also learned what that one had learned, so those follow it.
    """
    for name, digest in standing.models.items():
        label, checkpoint = name, _get(home, CHAMPION_KIND, digest)
        while True:
            yield label, checkpoint
            start = None if checkpoint is None else _begun_from(home, checkpoint)
            if start is None:
                break
            label, checkpoint = f"{name}, begun from {short(start)},", _get(home, CHAMPION_KIND, start)


def forgotten_behind(home: Home, models: Mapping[str, str]) -> dict[str, str]:
    """Of these checkpoints those that learned from what a tombstone took back, or nobody can tell; how.

    Args:
        home: Whose tombstones and tables.
        models: Digests by name.
    """
    from dpo_pipeline.annotations.tombstones import stale_tables, tombstones  # imports pyarrow

    found: dict[str, str] = {}
    stones = tombstones(home)
    for name, digest in models.items() if stones else ():
        lines = ", ".join(str(stone.number) for stone in stones if digest in stone.checkpoints)
        try:
            is_stale = any(stale_tables(home, home.store.get(CHAMPION_KIND, digest)))
        except ArtifactError:
            if not lines:
                found[name] = "rests on a table that is gone: nobody can tell whether it held what was taken back"
                continue
            is_stale = False
        if lines:
            found[name] = f"learned from what the tombstone on ledger line {lines} took back"
        elif is_stale:
            found[name] = "learned from tables that held what was taken back while it was in training"
    return found


def _begun_from(home: Home, checkpoint: Artifact) -> str | None:
    """The champion whose weights SFT began from before it; None: the base model, or nobody can tell."""
    sft = sft_behind(home, checkpoint)
    for start in sft.parents if sft is not None else ():
        if start.kind == CHAMPION_KIND and start.role == CHAMPION_ROLE:
            return start.digest
    return None


def _get(home: Home, kind: str, digest: str) -> Artifact | None:
    return home.store.get(kind, digest) if home.store.path_of(kind, digest).is_dir() else None

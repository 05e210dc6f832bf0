"""Whether to train again: never without change, never two at a time, never while a blocking check fails."""

from dataclasses import dataclass

import dagster as dg
from dagster import AssetCheckKey, AssetKey

from assets.dead_runs import lost_runs
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home

TRAINING_JOBS = {"train", "everything"}
TRAINED = frozenset(AssetKey(name) for name in ("sft_checkpoint", "reference_logprobs", "dpo_checkpoint"))
BLOCKING = {
    "judgments": ("books_balance",),
    "preference_pairs": ("pair_books_balance", "split_is_clean"),
}
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True, slots=True)
class Situation:
    """What speaks for a training and what against it.

    Attributes:
        hindrance: Why there must be none now; None where there may be.
        reason: What changed since the newest checkpoint.
        new_pairs: Training pairs added since then; None where the tables are not yet those of all drops.
        pairs_digest: The newest preference_pairs.
    """

    hindrance: str | None
    reason: str = ""
    new_pairs: int | None = None
    pairs_digest: str | None = None

    @property
    def pairs_in_words(self) -> str:
        """How many pairs have come since the newest checkpoint."""
        if self.new_pairs is None:
            return "the tables are not built from the newest drops yet; switch on tables_follow_drops"
        return f"{self.new_pairs:,} training pairs have come since the newest checkpoint"


def look_at(home: Home, instance: dg.DagsterInstance) -> Situation:
    """The situation of a home, by its ledger; of Dagster only which runs go on and which checks failed."""
    drops = {f"judgments/{drop}": home.latest("judgments", drop).digest for drop in home.partitions("judgments")}
    if not drops:
        return Situation("no drop has been taken in yet")
    used = _judgments_of_checkpoint(home)
    if used == drops:
        return Situation(f"the newest checkpoint already rests on all {len(drops)} drops")
    if run := _training_under_way(instance):
        return Situation(f"run {run} is training already; one at a time")
    is_current = _judgments_of_tables(home) == drops
    if failing := _failing_check(instance, tables_too=is_current):
        return Situation(f"the blocking check {failing} failed; its page in the UI says what to do")
    changed = sorted(name.removeprefix("judgments/") for name, digest in drops.items() if used.get(name) != digest)
    gone = sorted(name.removeprefix("judgments/") for name in used.keys() - drops.keys())
    words = [f"{len(changed)} new or changed drops: {', '.join(changed)[:200]}"] if changed else []
    words += [f"{len(gone)} drops gone: {', '.join(gone)[:200]}"] if gone else []
    if not is_current:
        return Situation(None, "; ".join(words))
    pairs = home.latest("preference_pairs")
    new_pairs = pairs.counts["pairs_train"] - _pairs_of_checkpoint(home)
    return Situation(None, "; ".join(words), new_pairs, pairs.digest)


def _judgments_of_tables(home: Home) -> dict[str, str]:
    if home.latest_line("preference_pairs") is None:
        return {}
    try:
        tables = home.latest("preference_pairs")
    except ArtifactError:
        return {}
    return {parent.role: parent.digest for parent in tables.parents if parent.kind == "judgments"}


def _judgments_of_checkpoint(home: Home) -> dict[str, str]:
    """What the newest DPO checkpoint rests on; nothing where there is none."""
    try:
        checkpoint = home.latest("dpo_checkpoint")
        pairs = next(parent for parent in checkpoint.parents if parent.kind == "preference_pairs")
        tables = home.store.get(pairs.kind, pairs.digest)
    except ArtifactError:
        return {}
    return {parent.role: parent.digest for parent in tables.parents if parent.kind == "judgments"}


def _pairs_of_checkpoint(home: Home) -> int:
    try:
        checkpoint = home.latest("dpo_checkpoint")
        pairs = next(parent for parent in checkpoint.parents if parent.kind == "preference_pairs")
        return home.store.get(pairs.kind, pairs.digest).counts["pairs_train"]
    except ArtifactError:
        return 0


def _training_under_way(instance: dg.DagsterInstance) -> str | None:
    """The id of a run that trains or will, whoever started it; one that was never handed on will not."""
    lost = {run.run_id for run in lost_runs(instance)}
    for run in instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)):
        if run.run_id in lost:
            continue
        if run.job_name in TRAINING_JOBS or TRAINED & (run.asset_selection or frozenset()):
            return run.run_id
    return None


def _failing_check(instance: dg.DagsterInstance, *, tables_too: bool) -> str | None:
    """A blocking check whose newest result is a failure.

    The tables' own are left out while the tables are old: a training builds them anew, and stops if one fails then.
    """
    assets = ["judgments", "preference_pairs"] if tables_too else ["judgments"]
    keys = [AssetCheckKey(AssetKey(asset), name) for asset in assets for name in BLOCKING[asset]]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key, record in found.items():
        event = record.event
        if event is None or event.dagster_event is None:
            continue
        evaluation = event.dagster_event.asset_check_evaluation_data
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            return f"{key.name} of {key.asset_key.to_user_string()}"
    return None

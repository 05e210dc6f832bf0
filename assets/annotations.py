"""A drop as it arrived, and what its records are: judgments, demonstrations, rejected records."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.described import books_as_markdown
from assets.tracked import Made, Step, tracked
from dpo_pipeline.annotations import CODE_VERSION
from dpo_pipeline.core.artifacts import Artifact, Outcome, Recipe
from dpo_pipeline.core.home import Home

PARQUET = frozenset({"parquet"})


@tracked(
    Made(
        "raw_annotations",
        "The files of one drop as the platform exported them: copied in, hashed, never changed.",
        frozenset({"file"}),
    ),
    stage="annotations",
    code_version=CODE_VERSION,
    by_drop=True,
    reusable=False,
)
def raw_annotations(step: Step) -> Outcome:
    """Copy the drop's files out of the inbox, if it is complete."""
    from dpo_pipeline.annotations.arrivals import open_inbox, take_in

    inbox = open_inbox(step.home.inbox_url, rest_seconds=step.profile.operation.inbox_rest_seconds)
    return take_in(inbox, str(step.partition), step.folder())


def judge_reading(artifacts: Mapping[str, Artifact]) -> Sequence[dg.AssetCheckResult]:
    """Whether every record of the drop is accounted for, and whether any of it was usable."""
    books = artifacts["judgments"].books
    assert books is not None
    drop = artifacts["judgments"].manifest["settings"]["drop"]
    kept = sum(books.kept.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in books.rejected.most_common(3))
    none_of_them = (
        f"None of the {books.records_in:,} records of {drop} could be used: {reasons}. `dpo-pipeline drop check` on "
        "the folder says why and proposes a drop.yaml that maps its columns; correct the drop in the inbox, and it is "
        "taken in as a new version."
    )
    return [
        dg.AssetCheckResult(
            passed=books.is_balanced,
            asset_key="judgments",
            check_name="books_balance",
            metadata={"books": dg.MetadataValue.md(books_as_markdown(books))},
            description=f"Of {drop}: records in = judged + demonstrations + rejected by reason. If not, the tables of "
            "this drop are not to be trusted: report it as a defect, with the books below.",
        ),
        dg.AssetCheckResult(
            passed=books.kept_count > 0,
            asset_key="judgments",
            check_name="something_usable",
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"drop": drop, "records in": books.records_in, "used": kept, "most frequent reasons": reasons},
            description=f"{kept:,} of the {books.records_in:,} records of {drop} could be used."
            if kept
            else none_of_them,
        ),
    ]


def key_and_tombstones(home: Home, reading: Recipe) -> Mapping[str, Any]:
    """Which pseudonym key this reading uses, and what it must leave out by the tombstones in the ledger."""
    from dpo_pipeline.annotations.tombstones import left_out_by

    key = {"pseudonyms": home.pseudonym_fingerprint()}
    keyed = Recipe(reading.kind, reading.code_version, {**reading.settings, **key}, reading.parents)
    return {**key, **left_out_by(home, keyed)}


@tracked(
    Made("judgments", "One row per verdict of one annotator on two responses.", PARQUET, "judgments.parquet"),
    Made("rejected_records", "Every record that was not usable, with its reason.", PARQUET, "rejected_records.parquet"),
    Made("demonstrations", "Example conversations for supervised fine-tuning.", PARQUET, "demonstrations.parquet"),
    stage="annotations",
    code_version=CODE_VERSION,
    reads=["raw_annotations"],
    settings=["annotations"],
    also_shaped=key_and_tombstones,
    by_drop=True,
    checks=[
        dg.AssetCheckSpec(
            "books_balance", asset="judgments", blocking=True, description="No record of the drop got lost on its way."
        ),
        dg.AssetCheckSpec(
            "something_usable", asset="judgments", description="Something of the drop could be used at all."
        ),
    ],
    judge=judge_reading,
)
def read_annotations(step: Step) -> Mapping[str, Outcome]:
    """Read every file of the drop once, into three tables."""
    from dpo_pipeline.annotations.forgotten import SETTING, Forgotten
    from dpo_pipeline.annotations.read import read_drop

    outcomes = read_drop(
        step.read("raw_annotations"),
        drop=str(step.partition),
        settings=step.profile.annotations,
        pseudonym_key=step.home.pseudonym_key(),
        judgments=step.folder("judgments"),
        rejected=step.folder("rejected_records"),
        demonstrations=step.folder("demonstrations"),
        reporter=step,
        forgotten=Forgotten.parse(step.shaped.get(SETTING, {}), where="the ledger's tombstones"),
    )
    names = ("judgments", "rejected_records", "demonstrations")
    return dict(zip(names, (outcomes.judgments, outcomes.rejected, outcomes.demonstrations), strict=True))

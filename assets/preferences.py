"""Judgments of all drops become preference pairs, and a report on who judged them."""

from itertools import islice
from typing import Any

import dagster as dg

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.preferences import CODE_VERSION


def follows(*assets: str) -> dg.AutomationCondition:
    """When one of these has new data, code changed or this is missing; not while anything it reads is in the making.

    Unlike Dagster's `eager`, a drop that could not be read holds up no other, and data that came out the same starts
    nothing.
    """
    condition = dg.AutomationCondition
    new_data = condition.any_deps_match(condition.data_version_changed()).allow(dg.AssetSelection.assets(*assets))
    changed: Any = new_data | condition.code_version_changed() | condition.newly_missing()
    return (
        changed.since_last_handled()
        & condition.all_deps_match(~condition.missing()).allow(dg.AssetSelection.assets(*assets))
        & ~condition.any_deps_in_progress()
        & ~condition.in_progress()
        & condition.all_deps_blocking_checks_passed()
    ).with_label(f"follows {' and '.join(assets)}")


@tracked(
    Made(
        "pair_sketches",
        "Keys and signatures by which duplicates are found; made once per drop.",
        frozenset({"parquet"}),
    ),
    stage="preferences",
    code_version=CODE_VERSION,
    reads=["judgments"],
    settings=["preferences"],
    by_drop=True,
)
def pair_sketches(step: Step) -> Outcome:
    """Sketch the drop's pairs."""
    from dpo_pipeline.preferences.sketch import sketch_drop

    return sketch_drop(step.read("judgments"), step.folder(), settings=step.profile.preferences, reporter=step)


@tracked(
    Made(
        "preference_pairs",
        "Judgments of all drops: consensus, cleaned, deduplicated, split into train and held-out.",
        frozenset({"parquet"}),
        "pairs.parquet",
    ),
    stage="preferences",
    code_version=CODE_VERSION,
    reads=["judgments", "pair_sketches"],
    settings=["preferences"],
    automation_condition=follows("judgments", "pair_sketches"),
)
def preference_pairs(step: Step) -> Outcome:
    """Build the tables from every drop, in order of arrival."""
    from dpo_pipeline.preferences.build import DropTables, build_pairs

    drops = [
        DropTables(name=str(name), judgments=judgments.path, sketches=sketches.path)
        for (name, judgments), (_, sketches) in zip(step.inputs["judgments"], step.inputs["pair_sketches"], strict=True)
    ]
    intact = (artifact.path for artifact in step.home.all_made("preference_pairs") if not artifact.verify())
    known = list(islice(intact, 1))
    return build_pairs(drops, step.folder(), settings=step.profile.preferences, reporter=step, known=known)


@tracked(
    Made("annotator_report", "Who judged what, how well they agree, who looks careless.", frozenset({"html"})),
    stage="preferences",
    code_version=CODE_VERSION,
    reads=["judgments", "pair_sketches", "preference_pairs"],
    settings=["preferences"],
    automation_condition=follows("preference_pairs"),
)
def annotator_report(step: Step) -> Outcome:
    """Report on the annotators of every drop."""
    from dpo_pipeline.preferences.annotators import report_annotators
    from dpo_pipeline.preferences.build import DropTables

    drops = [
        DropTables(name=str(name), judgments=judgments.path, sketches=sketches.path)
        for (name, judgments), (_, sketches) in zip(step.inputs["judgments"], step.inputs["pair_sketches"], strict=True)
    ]
    pairs = step.read("preference_pairs")
    return report_annotators(drops, pairs, step.folder(), settings=step.profile.preferences, reporter=step)

"""Judgments of all drops become preference pairs, and a report on who judged them."""

from itertools import islice
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.tracked import Made, Step, tracked
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.preferences import CODE_VERSION

if TYPE_CHECKING:
    from dpo_pipeline.preferences.texts import DropTables


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
    reads=["judgments", "demonstrations"],
    settings=["preferences"],
    by_drop=True,
)
def pair_sketches(step: Step) -> Outcome:
    """Sketch the drop's pairs, and the prompts of its demonstrations."""
    from dpo_pipeline.preferences.sketch import sketch_drop

    return sketch_drop(
        step.read("judgments"),
        step.folder(),
        demonstrations=step.read("demonstrations"),
        settings=step.profile.preferences,
        reporter=step,
    )


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
    from dpo_pipeline.preferences.build import build_pairs

    intact = (artifact.path for artifact in step.home.all_made("preference_pairs") if not artifact.verify())
    known = list(islice(intact, 1))
    return build_pairs(
        _tables_of_drops(step), step.folder(), settings=step.profile.preferences, reporter=step, known=known
    )


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

    pairs = step.read("preference_pairs")
    return report_annotators(
        _tables_of_drops(step), pairs, step.folder(), settings=step.profile.preferences, reporter=step
    )


def _tables_of_drops(step: Step) -> "list[DropTables]":
    """Judgments and sketch of every drop, in order of arrival.

    Raises:
        ArtifactError: If a drop's sketch is missing or of other judgments or demonstrations than the newest: its
            reading goes on, or failed half-way.
    """
    from dpo_pipeline.preferences.texts import DropTables

    sketches = dict(step.inputs["pair_sketches"])
    tables = []
    for name, judgments in step.inputs["judgments"]:
        sketch, told = sketches.get(name), step.home.latest_line("demonstrations", name)
        sketched = {parent.digest for parent in sketch.parents} if sketch else set()
        for table, digest in (("judgments", judgments.digest), ("demonstrations", told["artifact"] if told else None)):
            if sketch is None or (digest and digest not in sketched):
                raise ArtifactError(
                    f"the newest {table} of drop {name}, {digest}, have no sketch",
                    expected="a finished reading of every drop",
                    do="Wait until the run that reads the drop has ended, or run `ingest` of it again",
                )
        tables.append(DropTables(name=str(name), judgments=judgments.path, sketches=sketch.path))
    return tables

"""Sweeps: one partition a point, each a training and an evaluation from the same SFT checkpoint; then the frontier."""

from collections.abc import Mapping

import dagster as dg

from assets.tracked import Made, Points, Step, tracked
from dpo_pipeline.core.artifacts import Artifact, Outcome
from dpo_pipeline.core.home import Home
from dpo_pipeline.dpo import CODE_VERSION as DPO_VERSION
from dpo_pipeline.evaluation import CODE_VERSION
from dpo_pipeline.profiles.sweeps import profile_of_point

POINTS_NAME = "sweep_points"
POINTS = dg.DynamicPartitionsDefinition(name=POINTS_NAME)
SHARED = ("preference_pairs", "sft_checkpoint", "reference_logprobs")
"""What the points of one sweep have in common; points on other tables are not held up against them."""


@tracked(
    Made(
        "sweep_point",
        "One point of a sweep: DPO with its values, evaluated against SFT.",
        frozenset({"pytorch", "json"}),
    ),
    stage="sweeps",
    code_version=f"{DPO_VERSION}.{CODE_VERSION}",
    reads=[*SHARED, "demonstrations"],
    settings=["dpo", "evaluation", "sweep", "model", "compute"],
    points=Points(POINTS, profile_of_point),
    on_gpu=True,
)
def sweep_point(step: Step) -> Outcome:
    """Train and evaluate the point; what earlier points and reports asked SFT is not asked again."""
    earlier = [*step.home.all_made("sweep_point")[:1], *step.home.all_made("evaluation_report")[:1]]
    return step.perform(
        "dpo_pipeline.evaluation.sweep:run_point",
        pairs=step.read("preference_pairs"),
        demonstrations=step.read_all("demonstrations"),
        sft=step.read("sft_checkpoint"),
        reference=step.read("reference_logprobs"),
        out=step.folder(),
        work=step.work,
        known=[artifact.path for artifact in earlier if not artifact.verify()],
        dpo=step.profile.dpo,
        evaluation=step.profile.evaluation,
        sweep=step.profile.sweep,
        model=step.profile.model,
        compute=step.profile.compute,
    )


def comparable_points(home: Home) -> Mapping[str, Artifact]:
    """The newest artifact of every point on today's tables and SFT checkpoint, under equal settings but `dpo`."""
    wanted = {asset: line["artifact"] for asset in SHARED if (line := home.latest_line(asset)) is not None}
    found: dict[str, Artifact] = {}
    newest: Artifact | None = None
    for line in home.finished():
        if line["asset"] == "sweep_point" and home.store.path_of("sweep_point", line["artifact"]).is_dir():
            artifact = home.store.get("sweep_point", line["artifact"])
            behind = {parent.kind: parent.digest for parent in artifact.parents}
            if all(behind.get(asset) == digest for asset, digest in wanted.items()):
                found[line["partition"]] = newest = artifact
    return {} if newest is None else {name: each for name, each in found.items() if _shared(each) == _shared(newest)}


def _shared(point: Artifact) -> Mapping[str, object]:
    return {name: value for name, value in point.manifest["settings"].items() if name != "dpo"}


@tracked(
    Made(
        "sweep_report",
        "The points of a sweep side by side: reward accuracy against KL.",
        frozenset({"html", "json"}),
    ),
    stage="sweeps",
    code_version=CODE_VERSION,
    after=["sweep_point"],
    also_reads=lambda home, _profile: comparable_points(home),
)
def sweep_report(step: Step) -> Outcome:
    """Draw the frontier."""
    from dpo_pipeline.evaluation.sweep_report import report_sweep

    return report_sweep({name: found[0][1] for name, found in step.inputs.items()}, step.folder())


sweep = dg.define_asset_job(
    "sweep",
    dg.AssetSelection.assets("sweep_point"),
    description="Points of a sweep; launch a backfill over the partitions, or use `dpo-pipeline sweep`.",
)
frontier = dg.define_asset_job(
    "frontier",
    dg.AssetSelection.assets("sweep_report"),
    description="Holds the points of a sweep up against each other.",
)

"""Inputs are pinned before the work: the newest by the ledger, every file re-hashed, named in the recipe."""

from collections.abc import Mapping, Sequence

from assets.definition import DEFINITIONS, Definition, Made
from assets.step import Step
from dpo_pipeline.core.artifacts import Artifact, Parent, Recipe
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile


def pin_inputs(
    definition: Definition, home: Home, profile: Profile, drop: str | None, *, name: str
) -> Mapping[str, Sequence[tuple[str | None, Artifact]]]:
    """The newest artifact of each input by the ledger (never by Dagster's events), every file re-hashed.

    Args:
        definition: Whose inputs.
        home: Where they lie.
        profile: The settings of this attempt.
        drop: Its drop, if it is partitioned by drop.
        name: The run's profile; inputs made under another one with other settings are refused.
    """
    from dpo_pipeline.annotations.tombstones import refuse_forgotten
    from dpo_pipeline.profiles.belonging import refuse_other_profile

    pinned: dict[str, Sequence[tuple[str | None, Artifact]]] = {}
    for asset in definition.reads:
        if not DEFINITIONS[asset].by_drop:
            drops: Sequence[str | None] = [None]
        elif definition.by_drop:
            drops = [drop]
        else:
            drops = home.partitions(asset)
        pinned[asset] = [(name, home.latest(asset, name)) for name in drops]
    if definition.also_reads is not None:
        pinned.update({role: [(None, artifact)] for role, artifact in definition.also_reads(home, profile).items()})
    for role, found in pinned.items():
        # What comes beside, such as today's champion, may be trained otherwise; only the model must be the profile's.
        sections = None if role in definition.reads else ("model",)
        for _, artifact in found:
            _refuse_altered(definition, artifact)
            refuse_other_profile(home, artifact, name=name, profile=profile, sections=sections)
            refuse_forgotten(home, definition.made[0].name, artifact)
    return pinned


def _refuse_altered(definition: Definition, artifact: Artifact) -> None:
    if faults := artifact.verify():
        raise ArtifactError(
            f"an input of {definition.made[0].name} is not what was published: {'; '.join(faults)}",
            expected=f"the files of {artifact.kind} {artifact.digest} as its manifest lists them",
            do=f"Restore them from a backup, or materialize {artifact.kind} again; nothing was made from them",
        )


def recipe_of(made: Made, definition: Definition, step: Step) -> Recipe:
    """What shapes an asset: its kind, its code version, the settings it uses, its pinned inputs in order."""
    settings = {name: getattr(step.profile, name).model_dump(mode="json") for name in definition.settings}
    if definition.by_drop:
        settings["drop"] = step.partition
    settings.update(step.shaped)
    parents = tuple(
        Parent(role if drop is None else f"{role}/{drop}", artifact.kind, artifact.digest)
        for role, found in step.inputs.items()
        for drop, artifact in found
    )
    return Recipe(made.name, definition.code_version, settings, parents)

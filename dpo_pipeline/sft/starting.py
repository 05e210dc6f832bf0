"""What SFT starts from: the base model, or the champion of the day on which its data last changed."""

from collections.abc import Mapping

from dpo_pipeline.annotations.tombstones import stale_tables, tombstones
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import current_champion

ROLE = "champion"
DATA = ("demonstrations", "preference_pairs")


def start_of(home: Home, start_from: str) -> Mapping[str, Artifact]:
    """The champion under its role, pinned like every input and so part of the recipe; nothing for the base model.

    A model that becomes champion must not set off the next training by that alone, so as long as the newest SFT
    checkpoint rests on today's data, what it started from stays. A champion that rests on tables with something that
    is forgotten by now is nothing to go on from, for its weights keep it: then it is the base model.

    Args:
        home: Whose champion.
        start_from: `base` or `champion`.

    Raises:
        ArtifactError: If the champion's folder is gone.
    """
    if start_from != "champion":
        return {}
    newest = _newest(home)
    if newest is not None and _data_of(newest) == _data_today(home):
        return {
            parent.role: home.store.get(parent.kind, parent.digest) for parent in newest.parents if parent.role == ROLE
        }
    champion = current_champion(home)
    return {} if champion is None or _holds_forgotten(home, champion) else {ROLE: champion}


def _holds_forgotten(home: Home, champion: Artifact) -> bool:
    """Whether a table behind it holds what a tombstone took back, or is gone, so that nobody could tell."""
    if not tombstones(home):
        return False
    try:
        return any(stale_tables(home, champion))
    except ArtifactError:
        return True


def _newest(home: Home) -> Artifact | None:
    try:
        return home.latest("sft_checkpoint")
    except ArtifactError:
        return None


def _data_of(checkpoint: Artifact) -> dict[str, str]:
    return {parent.role: parent.digest for parent in checkpoint.parents if parent.kind in DATA}


def _data_today(home: Home) -> dict[str, str]:
    drops = {
        f"demonstrations/{drop}": home.latest("demonstrations", drop) for drop in home.partitions("demonstrations")
    }
    found = {**drops, "preference_pairs": home.latest("preference_pairs")}
    return {role: artifact.digest for role, artifact in found.items()}

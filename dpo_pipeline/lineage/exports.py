"""Lineage and tables in the formats of other tools, written where a person says."""

import json
from pathlib import Path

from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.lineage.chain import Node, ancestors, chain_of, of_kind
from dpo_pipeline.lineage.openlineage import run_events
from dpo_pipeline.release.datasets import write_dataset
from dpo_pipeline.release.settings import ReleaseSettings


def export_events(home: Home, path: Path) -> int:
    """Write every attempt as OpenLineage run events, one JSON object a line; how many."""
    count = 0
    with path.open("w", encoding="utf-8") as stream:
        for event in run_events(home):
            stream.write(json.dumps(event, ensure_ascii=False) + "\n")
            count += 1
    return count


def export_dataset(home: Home, subject: str, folder: Path, *, release: ReleaseSettings) -> int:
    """Write the pairs behind a subject as a dataset with its card and its Croissant description; how many pairs.

    Raises:
        ArtifactError: If no pairs stand behind the subject, or they are not what was published.
        InputError: If the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty", expected="a new or an empty folder", do="Give another")
    node = _pairs_behind(home, subject)
    if faults := node.artifact.verify():
        raise ArtifactError(f"the pairs are not what was published: {'; '.join(faults)}", do="Restore them first")
    day = str((node.attempt or {}).get("time", ""))[:10]
    contents = write_dataset(node.artifact.path, folder, release=release, published=day)
    return sum(contents.splits.values())


def export_model_card(home: Home, path: Path) -> str:
    """Write the model card of the newest release; the digest of the release.

    Raises:
        ArtifactError: If nothing was released yet, or the release is not what was published.
    """
    release = home.latest("release")
    if faults := release.verify():
        raise ArtifactError(f"the release is not what was published: {'; '.join(faults)}", do="Restore it first")
    path.write_bytes((release.path / "model" / "README.md").read_bytes())
    return release.digest


def _pairs_behind(home: Home, subject: str) -> Node:
    found = next(of_kind(ancestors(chain_of(home, subject)), "preference_pairs"), None)
    if found is None:
        raise ArtifactError(f"no preference_pairs stand behind {subject}", do="Name the pairs, or a model made of them")
    return found

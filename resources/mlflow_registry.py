"""Checkpoints as registered models: by reference and digest, never a copy of weights.

A version's source is `dpo-pipeline:/<asset>/<digest>`. A path would not do: an MLflow server refuses one outside the
run's own artifacts, and it would tie the version to one machine. The folder is a tag, for people.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import TrackingError

MODELS = ("sft_checkpoint", "dpo_checkpoint")
SCHEME = "dpo-pipeline"
DESCRIPTION = (
    "Versions point at artifacts by digest; `dpo-pipeline lineage show {kind}/<digest>` tells how one was made."
)


def source_of(kind: str, digest: str) -> str:
    """Where a version's files are: `dpo-pipeline:/dpo_checkpoint/<digest>`."""
    return f"{SCHEME}:/{kind}/{digest}"


def register_version(client: Any, folder: Path, artifact: Artifact, *, run_id: str, tags: dict[str, str]) -> str:
    """The version of a checkpoint, made unless its digest has one already.

    Args:
        client: MLflow.
        folder: The home's `mlflow/`, for a lock: MLflow itself would let two processes make one version each.
        artifact: The checkpoint.
        run_id: The run that made it first.
        tags: Said of the version beside its digest.
    """
    with _alone(folder):
        if found := versions_of(client, artifact.kind, artifact.digest):
            return str(found[0].version)
        _make_model(client, artifact.kind)
        version = client.create_model_version(
            artifact.kind,
            source=source_of(artifact.kind, artifact.digest),
            run_id=run_id,
            tags={"digest": artifact.digest, "asset": artifact.kind, "folder": str(artifact.path), **tags},
        )
        return str(version.version)


def versions_of(client: Any, model: str, digest: str | None = None) -> list[Any]:
    """The versions of a model, oldest first; with a digest, those that say they are it."""
    wanted = f"name = '{model}'" + (f" and tags.digest = '{digest}'" if digest else "")
    found, token = [], None
    while True:
        page = client.search_model_versions(wanted, max_results=1_000, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def alias_of(client: Any, model: str, alias: str) -> str | None:
    """The digest an alias points at; None where there is no such alias or model."""
    try:
        return client.get_model_version_by_alias(model, alias).tags.get("digest")
    except Exception as error:
        if getattr(error, "error_code", "") in {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"}:
            return None
        raise


def point_alias(client: Any, model: str, alias: str, digest: str | None) -> bool:
    """Point an alias at the version with a digest, or with None take it away; False if it already did.

    Raises:
        TrackingError: If no version has that digest yet.
    """
    if alias_of(client, model, alias) == digest:
        return False
    if digest is None:
        client.delete_registered_model_alias(model, alias)
        return True
    versions = versions_of(client, model, digest)
    if not versions:
        raise TrackingError(f"MLflow has no version of {model} with digest {digest} yet", do="Reconcile again")
    client.set_registered_model_alias(model, alias, str(versions[0].version))
    return True


def _make_model(client: Any, kind: str) -> None:
    try:
        client.create_registered_model(kind, description=DESCRIPTION.format(kind=kind))
    except Exception as error:
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "registry.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield

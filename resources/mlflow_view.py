"""MLflow as a witness: what its runs and models say of each attempt and checkpoint, beside what the ledger says."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from dpo_pipeline.core.home import Home
from dpo_pipeline.core.promotions import CHAMPION_KIND, champion_digest
from dpo_pipeline.lineage.witnesses import Record, ViewAwayError
from resources.mlflow_client import connect
from resources.mlflow_compare import attempts_of, record_of
from resources.mlflow_registry import MODELS, alias_of, source_of, versions_of

ALL_RUNS = 3  # mlflow.entities.ViewType.ALL: deleted ones too
PAGE = 1_000
CHAMPION = "champion"
FORGOTTEN = "forgotten"
"""Tag of a run whose checkpoint learned from records that a tombstone took back."""


class MlflowView:
    """MLflow as a witness. MLFLOW_TRACKING_URI names a server; else SQLite under the home."""

    name = "MLflow"

    def records(self, home: Home) -> Iterable[Record]:
        """One record a run, deleted ones too.

        Raises:
            ViewAwayError: If nothing was ever tracked here, or the server does not answer.
        """
        client, experiment = _asked(home)
        try:
            runs = list(runs_of(client, experiment))  # before the ledger is read: its line is written before the run
            attempts = attempts_of(home)
            return [record_of(run, home, attempts) for run in runs]
        except Exception as error:
            raise ViewAwayError(f"MLflow cannot be asked: {error}") from error

    def faults(self, home: Home, digests: Collection[str]) -> Iterable[str]:
        """What the model registry says of these checkpoints that the ledger does not.

        Raises:
            ViewAwayError: As in `records`.
        """
        client, _ = _asked(home)
        try:
            return [fault for digest, fault in registry_faults(client, home) if digest in digests]
        except Exception as error:
            raise ViewAwayError(f"MLflow's model registry cannot be asked: {error}") from error

    def mark(self, home: Home, marks: Mapping[str, str]) -> list[str]:
        """Tag the run of each attempt `forgotten`; what was newly tagged, or that MLflow is away."""
        said: list[str] = []
        try:
            client, experiment = _asked(home)
            for run in runs_of(client, experiment):
                sentence = marks.get(run.data.tags.get("attempt", ""))
                if sentence and run.data.tags.get(FORGOTTEN) != sentence and run.info.lifecycle_stage != "deleted":
                    client.set_tag(run.info.run_id, FORGOTTEN, sentence)
                    said.append(f"MLflow run {run.info.run_id} was marked: {sentence}")
        except Exception as error:  # noqa: BLE001 - a view that can be away; the next reconcile marks it
            return [*said, f"MLflow cannot be reached, the next reconcile marks what learned from it: {error}"]
        return said


def runs_of(client: Any, experiment: str) -> Iterator[Any]:
    """Every run of our experiment, deleted ones too."""
    token = None
    while True:
        page = client.search_runs([experiment], run_view_type=ALL_RUNS, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def made_of(home: Home) -> dict[str, list[str]]:
    """The digests the ledger says were made of each model, oldest first."""
    finished = home.finished()
    made = {model: [line["artifact"] for line in finished if line["asset"] == model] for model in MODELS}
    return {model: list(dict.fromkeys(digests)) for model, digests in made.items()}


def registry_faults(client: Any, home: Home) -> Iterator[tuple[str, str]]:
    """Each version or alias that says what the ledger does not: the digest it is about, and a sentence."""
    for model, made in made_of(home).items():
        seen: dict[str, Any] = {}
        for version in versions_of(client, model):
            digest, where = version.tags.get("digest", ""), f"MLflow's version {version.version} of {model}"
            if digest not in made:
                yield digest, f"{where} says digest {digest or 'nothing'}; the ledger knows no such {model}: forged"
                continue
            if version.source != source_of(model, digest):
                yield digest, f"{where} has the source {version.source}, the ledger says {source_of(model, digest)}"
            if digest in seen:
                yield digest, f"{where} and version {seen[digest].version} both say digest {digest}; one is enough"
            seen.setdefault(digest, version)
    if fault := champion_fault(client, home):
        about = {champion_digest(home), alias_of(client, CHAMPION_KIND, CHAMPION)}
        yield from ((digest, fault) for digest in about if digest)


def champion_fault(client: Any, home: Home) -> str | None:
    """A sentence if MLflow's alias is not at the checkpoint that the ledger's history of promotions ends with."""
    expected, found = champion_digest(home), alias_of(client, CHAMPION_KIND, CHAMPION)
    if expected == found:
        return None
    return (
        f"MLflow's alias {CHAMPION} of {CHAMPION_KIND} points at {found or 'nothing'}, "
        f"the ledger's promotions say {expected or 'nobody is champion'}"
    )


def _asked(home: Home) -> tuple[Any, str]:
    uri = os.environ.get("MLFLOW_TRACKING_URI") or ""
    if not uri and not (home.mlflow / "mlflow.db").exists():
        raise ViewAwayError(f"there is no {home.mlflow / 'mlflow.db'} and MLFLOW_TRACKING_URI is not set")
    try:
        return connect(uri, home.mlflow)
    except Exception as error:
        raise ViewAwayError(f"MLflow cannot be asked: {error}") from error

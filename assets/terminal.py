"""Jobs run from a terminal on behalf of a command: the same runs, in the same Dagster storage, as the UI's buttons."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg

from assets.definitions import build_definitions
from assets.materialize import terminal_logger
from dpo_pipeline.core.home import Home
from resources.artifact_store import ArtifactHome
from resources.instance import prepare_instance
from resources.settings import PipelineSettings

Run = Callable[..., bool]


@contextmanager
def terminal(home: Home, profile: str) -> Iterator[tuple[dg.DagsterInstance, Run]]:
    """The home's Dagster instance, and a function that runs a job, perhaps of a partition; whether it went well.

    Args:
        home: Where everything lies.
        profile: Name of the profile the assets use.
    """
    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*is currently in preview")  # Dagster's own, about Pipes
    prepare_instance(home)
    definitions = build_definitions(
        {"settings": PipelineSettings(profile=profile), "home": ArtifactHome(folder=str(home.root))},
        loggers={"console": terminal_logger},
    )
    with dg.DagsterInstance.get() as instance:

        def run(job: str, partition: str | None = None, config: Mapping[str, Any] | None = None) -> bool:
            result = definitions.resolve_job_def(job).execute_in_process(
                {"loggers": {"console": {}}, **(config or {})},
                instance=instance,
                partition_key=partition,
                raise_on_error=False,
            )
            return result.success

        yield instance, run

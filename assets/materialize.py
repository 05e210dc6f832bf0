"""Materialize from a terminal what the UI's buttons materialize: `python -m assets.materialize [JOB]`.

Takes in every complete drop of the inbox that is new or changed, one run a drop, then runs the job, then reconciles; in
Dagster's own storage, so the UI shows the same runs.
"""

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import dagster as dg

from assets.abandoned import close_abandoned
from assets.arrivals import READ_AGAIN, in_words, is_read, look
from assets.definitions import build_definitions
from assets.reconcile import reconcile
from assets.tracked import DROPS_NAME
from dpo_pipeline.annotations.arrivals import states_taken_in
from dpo_pipeline.core.home import Home
from resources.findings import Findings
from resources.instance import prepare_instance

FAULTS_SHOWN = 10


class OwnWords(logging.Filter):
    """Lets through what the stages say and why one failed; not Dagster's account of every event."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a person at a terminal wants the line; if so, its `stage` and `words` are set."""
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        record.stage = meta.get("step_key") or "run"
        words = str(meta.get("orig_message", record.getMessage())).strip()
        record.words = words
        if event is not None and event.event_type_value == "STEP_FAILURE":
            record.words = _why(event.step_failure_data)
            return True
        if event is not None and "blocked by limit for pool" in (event.message or ""):
            record.words = "waits: another run holds the device; it starts when that one ends"
            return True
        is_ours = event is None and not words.startswith("[pipes]")
        return is_ours and record.levelno in {logging.INFO, logging.WARNING}


def _why(failure: Any) -> str:
    """The sentence an asset failed with, or the error itself where it was not foreseen."""
    if failure.user_failure_data is not None:
        return f"FAILED. {failure.user_failure_data.description}"
    error = failure.error.cause or failure.error
    return f"FAILED. {error.to_string()}"


@dg.logger
def terminal_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """A logger whose lines read `stage  words`."""
    logger = logging.getLogger("dpo_pipeline.terminal")
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(OwnWords())
    handler.setFormatter(logging.Formatter("%(asctime)s  %(stage)-20s %(words)s", datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    return logger


def main(arguments: Sequence[str] | None = None) -> int:
    """Take in the inbox, run a job; 0 if all of it succeeded."""
    parser = argparse.ArgumentParser(description="Materialize from a terminal what the UI's buttons materialize.")
    parser.add_argument("job", nargs="?", default="everything", choices=["ingest", "train", "evaluate", "everything"])
    options = parser.parse_args(arguments)
    for chatty in ("alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*is currently in preview")  # Dagster's own, about Pipes
    prepare_instance(Home.default())
    started = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        definitions = build_definitions(loggers={"console": terminal_logger})
        ok = materialize(definitions, instance, home=Home.default(), job=options.job)
        close_books(reconcile(Home.default(), instance, (definitions.resources or {})["tracking"]))
    sys.stderr.write(f"\n{'All done' if ok else 'FAILED'} after {time.monotonic() - started:.0f} s.\n")
    return 0 if ok else 1


def materialize(definitions: dg.Definitions, instance: dg.DagsterInstance, *, home: Home, job: str) -> bool:
    """Run `ingest` for each complete drop that is new or changed, then `job`; whether every run succeeded.

    A drop known in this state is read again only if the readers or their settings changed since. Every drop is taken
    in, also after one that failed; the job runs only if all of them could be.
    """
    for attempt in close_abandoned(home, instance):
        sys.stderr.write(f"{attempt} was left open by a killed process; it is booked as killed.\n")
    if not _take_in(definitions, instance, home):
        return False
    return job == "ingest" or _run(definitions, instance, job)


def close_books(findings: Findings) -> None:
    """Say what the last reconcile did and found: a line where all is well, the faults where it is not."""
    signed = sum(deed.startswith("signed ") for deed in findings.deeds)
    said = [deed for deed in findings.deeds if not deed.startswith("signed ")]
    said += [f"{signed} artifacts were signed"] if signed else []
    said += [f"DOES NOT AGREE: {fault}" for fault in findings.faults[:FAULTS_SHOWN]]
    if len(findings.faults) > FAULTS_SHOWN:
        said.append(f"... {len(findings.faults)} in all; `dpo-pipeline lineage reconcile` lists them")
    said += [] if findings.faults else ["ledger, Dagster, MLflow and disk agree"]
    sys.stderr.write("\n" + "".join(f"lineage: {sentence}\n" for sentence in said))


def _take_in(definitions: dg.Definitions, instance: dg.DagsterInstance, home: Home) -> bool:
    settings = (definitions.resources or {})["settings"]
    deliveries, known = look(home, settings), states_taken_in(home)
    for sentence in in_words(deliveries):
        sys.stderr.write(f"inbox: {sentence}\n")
    new = [found.name for found in deliveries if found.hindrance is None and known.get(found.name) != found.state]
    again = [name for name in known if name not in new and not is_read(home, name, settings)]
    instance.add_dynamic_partitions(DROPS_NAME, [*new, *again])
    done = [_run(definitions, instance, "ingest", drop=drop) for drop in new]
    done += [_run(definitions, instance, "ingest", drop=drop, assets=READ_AGAIN) for drop in again]
    return all(done)


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    *,
    drop: str | None = None,
    assets: Sequence[str] | None = None,
) -> bool:
    result = definitions.resolve_job_def(job).execute_in_process(
        {"loggers": {"console": {}}},
        instance=instance,
        partition_key=drop,
        asset_selection=[dg.AssetKey(asset) for asset in assets] if assets else None,
        raise_on_error=False,
    )
    if not result.success:
        sys.stderr.write(f"{job}{f' of drop {drop}' if drop else ''} failed.\n")
    return result.success


if __name__ == "__main__":
    sys.exit(main())

"""How heavy work is started: in a child process that dies with its parent, or in this process for small tests."""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import dagster as dg

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.books import Books
from resources.child import perform


class Launcher(Protocol):
    """Something that performs a library call elsewhere and brings its outcome back."""

    def launch(self, context: dg.AssetExecutionContext, work: "Work") -> Outcome:
        """Perform the work, stream its progress to the context's log and return its outcome."""
        ...


class Work(dict[str, Any]):
    """A library call in plain values: `function` ("dpo_pipeline.dpo.train:train_dpo"), `arguments`, `metrics`."""


class ChildProcess:
    """Runs the call in a fresh Python process over Dagster Pipes.

    The child holds the accelerator's memory and gives all of it back when it ends; it is terminated with the run and
    dies with its parent.
    """

    def launch(self, context: dg.AssetExecutionContext, work: Work) -> Outcome:
        """Start the child, forward its messages, and return what it wrote as its answer."""
        with tempfile.TemporaryDirectory(prefix="dpo-pipeline-") as folder:
            answer = Path(folder) / "answer.json"
            client = dg.PipesSubprocessClient(termination_timeout_seconds=10)
            try:
                client.run(
                    context=context.op_execution_context,
                    command=[sys.executable, "-m", "resources.child", str(os.getpid())],
                    extras={**work, "answer": str(answer)},
                )
            except Exception as error:  # noqa: BLE001 - the child ended with a code; Dagster does not export the type
                return _outcome(_answer_or_crash(answer, error))
            return _outcome(json.loads(answer.read_text(encoding="utf-8")))


class InThisProcess:
    """Runs the call right here: no isolation, no start-up cost. The double for tests."""

    def launch(self, context: dg.AssetExecutionContext, work: Work) -> Outcome:
        """Perform the call and return its outcome; its errors reach the caller as they are."""
        return perform(work, say=context.log.info)


def _answer_or_crash(answer: Path, error: Exception) -> Mapping[str, Any]:
    if answer.exists():
        return json.loads(answer.read_text(encoding="utf-8"))
    # Dagster says the code in words only; -9 is SIGKILL, 137 the same as a shell reports it.
    killed = any(str(error).rstrip(".").endswith(f"code {code}") for code in (-9, 137))
    how = "it was killed, most often for memory" if killed else str(error)
    change = "Lower compute.batch_tokens or switch on compute.gradient_checkpointing; a retry" if killed else "A retry"
    raise dg.Failure(
        description=(
            f"The child process ended without an answer: {how}. "
            f"Its log is above under stdout/stderr. {change} resumes from the last checkpoint."
        )
    ) from error


def _outcome(answer: Mapping[str, Any]) -> Outcome:
    if "error" in answer:
        raise dg.Failure(
            description=answer["error"], metadata={"kind": answer["kind"]}, allow_retries=not answer["foreseen"]
        )
    books = answer["books"]
    return Outcome(
        counts=answer["counts"],
        facts=answer["facts"],
        books=None if books is None else Books.from_dict(books),
        remarks=answer["remarks"],
    )

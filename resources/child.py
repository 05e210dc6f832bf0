"""The child process's entry: takes a library call from Dagster Pipes, performs it, writes the answer.

Run as `python -m resources.child` by `resources.launchers.ChildProcess`, or forked by `resources.warm`; never by hand.
"""

import importlib
import json
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.parenthood import die_with_parent
from resources.spool import Spool


class FileAndLog:
    """A reporter whose sentences go to a log and whose numbers and notes go to a file that the parent follows.

    Args:
        say: Where sentences go.
        path: Where numbers and notes go; see `Spool`.
    """

    def __init__(self, say: Callable[[str], None], path: Path) -> None:
        self._say, self._spool = say, Spool(path)

    def say(self, sentence: str) -> None:
        """Pass a sentence on."""
        self._say(sentence)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Append one step's numbers, with the time at which they were measured."""
        self._spool.add(step, values)

    def note(self, **facts: Any) -> None:
        """Append what is to be on record even if the work fails."""
        self._spool.note(facts)


def perform(work: Mapping[str, Any], *, say: Callable[[str], None]) -> Outcome:
    """Call the library function that `work` names, its plain values turned into the annotated types."""
    module, name = work["function"].split(":")
    function = getattr(importlib.import_module(module), name)
    hints = typing.get_type_hints(function)
    arguments = {key: TypeAdapter(hints[key]).validate_python(value) for key, value in work["arguments"].items()}
    reporter: Reporter = FileAndLog(say, Path(work["metrics"]))
    if "compute" in arguments:
        from dpo_pipeline.modeling.device import choose_device

        reporter.note(device=choose_device(arguments["compute"]).sentence)
    return function(**arguments, reporter=reporter)


def main(parent: int) -> int:
    """Perform the work Dagster sent and write `answer.json`; 0 if it was done, 1 if it ended in an error.

    Args:
        parent: Id of the process to end with.
    """
    die_with_parent(parent)
    # Dagster asks with SIGINT, waits ten seconds, and takes a child that is still there for a failure to be retried.
    # A kill at any moment loses nothing here, so there is nothing to wait for: the kernel ends us at once.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        work = pipes.extras
        try:
            outcome = perform(work, say=pipes.log.info)
        except PipelineError as error:
            foreseen = not error.is_worth_a_retry
            answer: dict[str, Any] = {"error": str(error), "kind": type(error).__name__, "foreseen": foreseen}
        except Exception as error:  # noqa: BLE001 - told as what it was; without an answer it would pass for a kill
            traceback.print_exc()
            answer = {"error": _unforeseen(error), "kind": type(error).__name__, "foreseen": False}
        else:
            answer = {
                "counts": dict(outcome.counts),
                "facts": dict(outcome.facts),
                "books": None if outcome.books is None else outcome.books.as_dict(),
                "remarks": dict(outcome.remarks),
            }
        Path(work["answer"]).write_text(json.dumps(answer), encoding="utf-8")
    return 1 if "error" in answer else 0


def _unforeseen(error: Exception) -> str:
    return (
        f"Nobody foresaw this error: {type(error).__name__}: {error}. Its traceback is in the log under stderr; "
        "a retry resumes from the last checkpoint."
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

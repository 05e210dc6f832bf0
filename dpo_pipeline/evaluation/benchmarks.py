"""Standard benchmarks through EleutherAI's lm-evaluation-harness, an extra: `pip install 'dpo-pipeline[lm-eval]'`."""

import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dpo_pipeline.core.errors import CapacityError, InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.benchmark_answers import (
    Z_95,
    BenchmarkAnswer,
    answers_of,
    figure_of,
    metric_of,
    rounded,
)
from dpo_pipeline.evaluation.settings import BenchmarkSettings


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One figure of one task: `low` and `high` are value -+ 1.96 of the harness's own standard error, where it has one.

    Attributes:
        task: The harness's name of the task.
        metric: Its name of the figure, with the filter it was taken after unless that is `none`.
        value: The figure.
        low: Lower end of the 95 % interval.
        high: Upper end.
        count: Questions asked.
        is_mean_of_answers: Whether value and interval are the mean over the stored answers and its error.
    """

    task: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    count: int
    is_mean_of_answers: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Taken(NamedTuple):
    """The figures of each task, and the answers to each question they were made of."""

    rows: list[BenchmarkRow]
    answers: list[BenchmarkAnswer]


def require_harness() -> None:
    """Refuse before anything is spent.

    Raises:
        CapacityError: If the harness is not installed.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise CapacityError(
            "benchmarks need the package lm-eval, which is not installed",
            do="Run `pip install 'dpo-pipeline[lm-eval]'`, or leave evaluation.benchmarks out of the profile",
        )


def run_benchmarks(
    model: Any, tokenizer: Any, *, settings: BenchmarkSettings, batch_size: int, reporter: Reporter
) -> Taken:
    """The figures and answers of each task for a loaded model, in the order of the tasks' names.

    Args:
        model: As `policy.load_policy` returns it.
        tokenizer: The model's tokenizer.
        settings: Which tasks, how many questions of each.
        batch_size: Questions asked at once.
        reporter: Hears which tasks are run.

    Raises:
        CapacityError: If the harness is not installed.
        InputError: If a task is not known, its data cannot be had, or it fails.
    """
    require_harness()
    from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]  an extra
    from lm_eval.models.huggingface import HFLM  # pyright: ignore[reportMissingImports]  an extra
    from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]  an extra

    reporter.say(f"Benchmarks: {', '.join(settings.tasks)}")
    folder = None if settings.folder is None else str(Path(settings.folder).resolve())
    try:
        found = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size),
            tasks=list(settings.tasks),
            num_fewshot=settings.few_shots,
            limit=settings.limit,
            apply_chat_template=settings.chat_template,
            task_manager=TaskManager(include_path=folder),
            bootstrap_iters=1_000,
            log_samples=True,
        )
    except Exception as error:  # tasks are other people's code and data: whatever they raise ends in a sentence
        raise InputError(
            f"the benchmarks {', '.join(settings.tasks)} could not be run: {type(error).__name__}: {error}",
            expected="tasks the harness knows (`lm_eval ls tasks`), with their data on this machine or within reach",
            do="Correct evaluation.benchmarks, or fetch the data sets beforehand",
        ) from error
    answers = list(answers_of(found or {}))
    return Taken(list(_rows(found or {}, answers)), answers)


def _rows(found: Mapping[str, Any], answers: Sequence[BenchmarkAnswer]) -> Iterator[BenchmarkRow]:
    """The harness's figures `name,filter`, each beside its `name_stderr,filter`; from the answers where they agree."""
    values: dict[tuple[str, str], list[float | None]] = {}
    for answer in answers:
        values.setdefault((answer.task, answer.metric), []).append(answer.value)
    for task, figures in sorted(found.get("results", {}).items()):
        count = int(found.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in sorted(figures.items()):
            name, _, way = key.partition(",")
            if not way or name.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{name}_stderr,{way}")
            half = Z_95 * error if isinstance(error, int | float) else None
            said = (value, None, None) if half is None else (value, value - half, value + half)
            metric = metric_of(name, way)
            own = figure_of(values.get((task, metric), []))
            is_mean = all(map(_agree, said, own))
            mean, low, high = own if is_mean else (None if one is None else rounded(one) for one in said)
            yield BenchmarkRow(task, metric, mean, low, high, count, is_mean_of_answers=is_mean)


def _agree(said: float | None, own: float | None) -> bool:
    """Whether a figure of the harness is the one that follows from the answers."""
    return said is own or (said is not None and own is not None and math.isclose(said, own, rel_tol=1e-5, abs_tol=1e-9))

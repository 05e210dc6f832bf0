"""What a model did on each question of a benchmark, as stored, and the figures that follow from it.

Where a task's figure is the mean over its questions, as accuracy is, figure and interval are taken from these rows, so
that an audit finds them again. A perplexity, a corpus BLEU or a group of tasks is none, and stands as the harness said.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

Z_95 = 1.959964
LONGEST = 2_000
"""Characters of an answer and of what was expected that are stored."""


@dataclass(frozen=True, slots=True)
class BenchmarkAnswer:
    """One question under one metric.

    Attributes:
        task: The harness's name of the task.
        metric: Its name of the figure, with the filter it was taken after unless that is `none`.
        item: Which question, by the harness's number.
        item_sha256: The harness's digest of the question.
        value: What the answer counts; None where that is no number, as in figures over a whole corpus.
        target: What was expected, as text.
        response: What the model answered after the filter, as JSON: texts, or log-probs of the choices.
    """

    task: str
    metric: str
    item: str
    item_sha256: str
    value: float | None
    target: str
    response: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def answers_of(found: Mapping[str, Any]) -> Iterator[BenchmarkAnswer]:
    """The answers in what the harness returns under `samples`, by task, metric and question."""
    for task, samples in sorted(found.get("samples", {}).items()):
        answers = [answer for sample in samples for answer in _of_sample(task, sample)]
        yield from sorted(answers, key=lambda answer: (answer.metric, len(answer.item), answer.item))


def _of_sample(task: str, sample: Mapping[str, Any]) -> Iterator[BenchmarkAnswer]:
    way = str(sample.get("filter", "none"))
    for name in sample.get("metrics", ()):
        value = sample.get(name)
        number = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        yield BenchmarkAnswer(
            task,
            metric_of(name, way),
            str(sample.get("doc_id", "")),
            str(sample.get("doc_hash", "")),
            number,
            str(sample.get("target", ""))[:LONGEST],
            json.dumps(sample.get("filtered_resps"), ensure_ascii=False, default=str)[:LONGEST],
        )


def metric_of(name: str, way: str) -> str:
    """A figure's name with the filter it was taken after.

    >>> metric_of("acc", "none"), metric_of("exact_match", "strict")
    ('acc', 'exact_match, strict')
    """
    return name if way == "none" else f"{name}, {way}"


def figure_of(values: Sequence[float | None]) -> tuple[float | None, float | None, float | None]:
    """Mean over questions, and the ends of its 95 % interval from the standard error of a mean.

    >>> figure_of([0.0, 1.0, 1.0, 0.0])
    (0.5, -0.0657929, 1.06579)
    """
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return None, None, None
    mean = fmean(known)
    if len(known) < 2:
        return rounded(mean), None, None
    half = Z_95 * stdev(known) / math.sqrt(len(known))
    return rounded(mean), rounded(mean - half), rounded(mean + half)


def rounded(value: float) -> float | None:
    """Six digits; None where it is no number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None

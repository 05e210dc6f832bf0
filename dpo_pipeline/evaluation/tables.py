"""The tables every figure of a report is measured again from, row by row: `restored.py` reads them back."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dpo_pipeline.core.tables import write_table
from dpo_pipeline.evaluation.evidence import Material
from dpo_pipeline.evaluation.generations import reply_rows, rules_met
from dpo_pipeline.evaluation.judges import Judged
from dpo_pipeline.evaluation.schemas import BENCHMARKS, COMPARISONS, DEMONSTRATION_SCORES, REPLIES, SAMPLES, SCORES
from dpo_pipeline.evaluation.settings import Rubric

SCORES_FILE, SAMPLES_FILE = "scores.parquet", "samples.parquet"
DEMONSTRATIONS_FILE, COMPARISONS_FILE = "demonstration_scores.parquet", "comparisons.parquet"
BENCHMARKS_FILE = "benchmark_answers.parquet"
"""There where benchmarks were asked for."""


def write_tables(out: Path, material: Material, *, beta: float, rubric: Rubric | None) -> None:
    """Write what each model thinks of each text it was asked about, what it replied, and every judge's verdicts.

    Args:
        out: The folder written into.
        material: What the models said.
        beta: Scale of the implicit reward.
        rubric: Rules whose outcome goes beside each reply.
    """
    held_out, rows = material.held_out, []
    reference = material.statements[material.baseline].scores_of(held_out.pairs)
    for name, statement in material.statements.items():
        scores = statement.scores_of(held_out.pairs)
        margins = beta * (scores.chosen - reference.chosen - scores.rejected + reference.rejected)
        rows += [
            {
                "pair_id": pair["pair_id"],
                "cluster_id": pair["cluster_id"],
                "model": name,
                "chosen_log_prob": scores.chosen[at],
                "rejected_log_prob": scores.rejected[at],
                "chosen_tokens": scores.chosen_tokens[at],
                "rejected_tokens": scores.rejected_tokens[at],
                "margin": margins[at],
            }
            for at, pair in enumerate(held_out.pairs)
        ]
    write_table(out / SCORES_FILE, pa.Table.from_pylist(rows, schema=SCORES))
    replies = [
        row
        for statement in material.statements.values()
        for said in statement.replies.values()
        for row in reply_rows(said, rules_met(said, held_out, rubric=rubric), held_out)
    ]
    write_table(out / "replies.parquet", pa.Table.from_pylist(replies, schema=REPLIES))
    for file, schema, own in (
        (SAMPLES_FILE, SAMPLES, _samples(material)),
        (DEMONSTRATIONS_FILE, DEMONSTRATION_SCORES, _demonstrations(material)),
        (COMPARISONS_FILE, COMPARISONS, _comparisons(material)),
    ):
        write_table(out / file, pa.Table.from_pylist(list(own), schema=schema))
    if material.benchmark_answers:
        answers = [
            {"model": name, **answer.as_dict()} for name, own in material.benchmark_answers.items() for answer in own
        ]
        write_table(out / BENCHMARKS_FILE, pa.Table.from_pylist(answers, schema=BENCHMARKS))


def _samples(material: Material) -> Iterator[dict[str, Any]]:
    """What the divergence is made of: sampled replies that both the model and the baseline could score."""
    for name, reference in material.reference_samples.items():
        own = material.statements[name].own_samples
        for prompt_id in sorted(own.keys() & reference.keys()):
            yield {
                "prompt_id": prompt_id,
                "model": name,
                "own_log_prob": own[prompt_id].chosen_logp,
                "reference_log_prob": reference[prompt_id].chosen_logp,
                "token_count": own[prompt_id].chosen_tokens,
            }


def _demonstrations(material: Material) -> Iterator[dict[str, Any]]:
    for name, statement in material.statements.items():
        for position in sorted(statement.demonstrations, key=int):
            answer = statement.demonstrations[position]
            yield {
                "position": int(position),
                "model": name,
                "log_prob": answer.chosen_logp,
                "token_count": answer.chosen_tokens,
            }


def _comparisons(material: Material) -> Iterator[dict[str, Any]]:
    pairs = [row["pair_id"] for row in material.held_out.pairs]
    asked_about_people: set[str] = set()
    for result in material.judged:
        if result.against_people is not None and result.judge not in asked_about_people:
            asked_about_people.add(result.judge)
            yield from _verdicts(result.judge, None, pairs, result.against_people)
        yield from _verdicts(result.judge, result.opponent, result.prompt_ids, result.judged)


def _verdicts(judge: str, opponent: str | None, items: Sequence[str], judged: Judged) -> Iterator[dict[str, Any]]:
    for item, verdict, is_flipped in zip(items, judged.verdicts, judged.flipped, strict=False):
        yield {
            "judge": judge,
            "opponent": opponent,
            "item_id": item,
            "verdict": None if verdict is None else verdict.value,
            "is_flipped": is_flipped,
        }

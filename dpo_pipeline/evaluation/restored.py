"""A report measured again from the tables stored beside it: what models and judges said, read back row by row."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation.benchmark_answers import figure_of
from dpo_pipeline.evaluation.evidence import Material
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut
from dpo_pipeline.evaluation.judges import Judged, Verdict
from dpo_pipeline.evaluation.judging import JudgeResult, comparison_of
from dpo_pipeline.evaluation.memory import REPLIES_FILE
from dpo_pipeline.evaluation.replies import Reply
from dpo_pipeline.evaluation.report import build_report
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.tables import (
    BENCHMARKS_FILE,
    COMPARISONS_FILE,
    DEMONSTRATIONS_FILE,
    SAMPLES_FILE,
    SCORES_FILE,
)
from dpo_pipeline.evaluation.witness import Answer, Statement

FILES = (SCORES_FILE, REPLIES_FILE, SAMPLES_FILE, DEMONSTRATIONS_FILE, COMPARISONS_FILE)
Rows = list[dict[str, Any]]


def rebuilt_report(
    folder: Path,
    claimed: Mapping[str, Any],
    held_out: HeldOut,
    demonstrations: Sequence[Conversation],
    *,
    settings: EvaluationSettings,
    beta: float,
) -> dict[str, Any]:
    """The report that the stored rows give, as plain values.

    Who takes part, the notes, the training curves and those figures of benchmarks that are no mean over questions are
    taken from the report, for no row of these tables says them; everything else is measured again.

    Args:
        folder: An evaluation_report artifact folder.
        claimed: The values of its report.json.
        held_out: What was asked, read again from the preference tables.
        demonstrations: The held-out demonstrations, read again.
        settings: Those of the evaluation.
        beta: Scale of the implicit reward.

    Raises:
        ArtifactError: If a row that a figure needs is missing.
    """
    rows = {file: pq.read_table(folder / file).to_pylist() for file in FILES}
    statements = {name: _statement(name, rows) for name in claimed["models"]}
    scored = set.intersection(*(set(each.answers) for each in statements.values()))
    kept = [row for row in held_out.pairs if row["pair_id"] in scored]
    left_out = held_out.left_out + len(held_out.pairs) - len(kept)
    held_out = replace(held_out, pairs=kept, reference=None, left_out=left_out)
    material = Material(
        held_out,
        statements,
        {
            name: _answers(rows[SAMPLES_FILE], name, "prompt_id", ("reference_log_prob", "token_count"))
            for name in statements
            if name != claimed["baseline"]
        },
        list(_judged(rows, held_out, claimed)),
        demonstrations,
        claimed["models"],
        baseline=claimed["baseline"],
        challenger=claimed["challenger"],
        opponents=claimed["opponents"],
        notes=claimed["notes"],
        benchmarks=_benchmarks(folder, claimed["benchmarks"]),
    )
    return json.loads(json.dumps(build_report(material, settings=settings, beta=beta)))


def _benchmarks(folder: Path, claimed: Mapping[str, Rows]) -> dict[str, Rows]:
    """The claimed figures, those that are means over questions taken from the answers again, and any left out."""
    path, groups = folder / BENCHMARKS_FILE, dict[tuple[str, str, str], list[float | None]]()
    for row in pq.read_table(path).to_pylist() if path.exists() else ():
        groups.setdefault((row["model"], row["task"], row["metric"]), []).append(row["value"])
    again: dict[str, Rows] = {name: [] for name in claimed}
    for name, rows in claimed.items():
        for row in rows:
            values = groups.pop((name, row["task"], row["metric"]), [])
            found = _mean(values) if row["is_mean_of_answers"] else {}
            again[name].append({**row, **found})
    for (name, task, metric), values in groups.items():
        again.setdefault(name, []).append({"task": task, "metric": metric, **_mean(values)})
    return again


def _mean(values: Sequence[float | None]) -> dict[str, Any]:
    value, low, high = figure_of(values)
    return {"value": value, "low": low, "high": high, "count": len(values)}


def _statement(name: str, rows: Mapping[str, Rows]) -> Statement:
    replies: dict[str, list[Reply]] = {}
    for row in rows[REPLIES_FILE]:
        if row["model"] == name:
            said = Reply(
                row["prompt_id"],
                name,
                row["decoding"],
                row["reply"],
                row["token_count"],
                row["is_finished"],
                row["key"],
            )
            replies.setdefault(row["decoding"], []).append(said)
    scores = {
        row["pair_id"]: Answer(
            row["chosen_log_prob"], row["rejected_log_prob"], row["chosen_tokens"], row["rejected_tokens"]
        )
        for row in rows[SCORES_FILE]
        if row["model"] == name
    }
    return Statement(
        name,
        scores,
        replies,
        _answers(rows[SAMPLES_FILE], name, "prompt_id", ("own_log_prob", "token_count")),
        _answers(rows[DEMONSTRATIONS_FILE], name, "position", ("log_prob", "token_count")),
    )


def _answers(rows: Rows, model: str, key: str, columns: tuple[str, str]) -> dict[str, Answer]:
    """Log-prob and tokens of one text each; of the second text of the question nothing is stored, nothing asked."""
    log_prob, tokens = columns
    return {str(row[key]): Answer(row[log_prob], 0.0, row[tokens], 0) for row in rows if row["model"] == model}


def _judged(rows: Mapping[str, Rows], held_out: HeldOut, claimed: Mapping[str, Any]) -> Iterator[JudgeResult]:
    """Verdicts per judge and opponent, in the order stored."""
    groups: dict[tuple[str, str | None], Rows] = defaultdict(list)
    for row in rows[COMPARISONS_FILE]:
        groups[row["judge"], row["opponent"]].append(row)
    said = {
        (row["model"], row["prompt_id"]): row["reply"]
        for row in rows[REPLIES_FILE]
        if row["decoding"] == claimed["judged_decoding"]
    }
    prompts = {row["prompt_id"]: row for row in held_out.prompts}
    for (judge, opponent), own in groups.items():
        if opponent is None:
            continue
        ids = tuple(row["item_id"] for row in own)
        for model in (opponent, claimed["challenger"]):
            if missing := [each for each in ids if (model, each) not in said or each not in prompts]:
                raise ArtifactError(
                    f"{judge} judged {len(ids)} replies of {model}; {len(missing)} of them are not stored or answer "
                    f"no held-out prompt, such as that to {missing[0]}"
                )
        comparisons = tuple(
            comparison_of(prompts[each], said[opponent, each], said[claimed["challenger"], each]) for each in ids
        )
        people = groups.get((judge, None))
        yield JudgeResult(
            judge,
            opponent,
            ids,
            tuple(prompts[each]["cluster_id"] for each in ids),
            comparisons,
            _verdicts(own),
            None if people is None else _verdicts(people),
        )


def _verdicts(rows: Rows) -> Judged:
    return Judged(
        tuple(None if row["verdict"] is None else Verdict(row["verdict"]) for row in rows),
        tuple(row["is_flipped"] for row in rows),
    )

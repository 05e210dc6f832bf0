"""The evaluation stage: held-out data and checkpoints in, report and tables out. Reads top to bottom."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.evaluation.evidence import Material
from dpo_pipeline.evaluation.first_screen import draw_first_screen
from dpo_pipeline.evaluation.generations import reply_rows, rules_met
from dpo_pipeline.evaluation.headline import headline_facts
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut, read_held_out
from dpo_pipeline.evaluation.judging import make_judges, run_judges
from dpo_pipeline.evaluation.page import render_page
from dpo_pipeline.evaluation.report import build_report, write_report
from dpo_pipeline.evaluation.schemas import REPLIES, SCORES
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.speakers import speaking
from dpo_pipeline.evaluation.training import demonstrations_of, describe_training
from dpo_pipeline.evaluation.witness import Answer, Statement, question, sample_questions
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings

BASELINE, CHALLENGER = "sft", "dpo"


def evaluate(  # noqa: PLR0913 - the keywords are the contract with the orchestration
    pairs: Path,
    demonstrations: Sequence[Path],
    sft: Path,
    dpo: Path,
    reference: Path,
    out: Path,
    *,
    work: Path,
    evaluation: EvaluationSettings,
    dpo_settings: DpoSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
    others: Mapping[str, Path] | None = None,
) -> Outcome:
    """Compare the DPO model with the SFT model it came from, and write what was found.

    Args:
        pairs: The preference_pairs artifact folder.
        demonstrations: Demonstration artifact folders of all drops, as SFT got them.
        sft: The sft_checkpoint artifact folder: the baseline and the reference.
        dpo: The dpo_checkpoint artifact folder: the challenger.
        reference: The reference_logprobs artifact folder.
        out: Where report.json, report.html, first_screen.png, replies.parquet and scores.parquet are written.
        work: Folder kept between attempts; holds verdicts of judges that cost money.
        evaluation: What is measured and how.
        dpo_settings: Give beta.
        model: Gives the longest conversation.
        compute: The machine.
        reporter: Hears what is being done, and the headline figures.
        others: More checkpoints to show side by side, such as base or champion.

    Returns:
        Counts of what was asked, the headline figures, and the seconds of each part as remarks.
    """
    clock = _Clock()
    conversations = demonstrations_of(sft, demonstrations, pairs)
    kept_aside = conversations.held_out[: evaluation.demonstration_count]
    held_out = read_held_out(pairs, reference, prompt_count=evaluation.generation_count, learned=conversations.train)
    reporter.say(f"{len(held_out.pairs)} held-out pairs, {len(held_out.prompts)} prompts to reply to")

    checkpoints = {BASELINE: sft, CHALLENGER: dpo, **(others or {})}
    statements, reference_samples = _hear_all(
        checkpoints, held_out, kept_aside, settings=evaluation, model=model, compute=compute, reporter=reporter
    )
    clock.note("models_seconds")

    held_out = _scored_by_all(held_out, statements)
    judges = make_judges(evaluation, work=work, device=choose_device(compute).kind, reporter=reporter)
    opponents = [statement for name, statement in statements.items() if name != CHALLENGER]
    judged = run_judges(
        judges,
        held_out,
        challenger=statements[CHALLENGER],
        opponents=opponents,
        decoding=evaluation.judged_decoding,
        reporter=reporter,
    )
    clock.note("judges_seconds")

    training = {name: describe_training(checkpoint) for name, checkpoint in checkpoints.items()}
    material = Material(held_out, statements, reference_samples, judged, kept_aside, training)
    report = build_report(material, settings=evaluation, beta=dpo_settings.beta)
    clock.note("figures_seconds")

    _write_tables(out, material, beta=dpo_settings.beta, evaluation=evaluation)
    write_report(out / "report.json", report)
    (out / "report.html").write_text(render_page(report), encoding="utf-8")
    draw_first_screen(report, out / "first_screen.png")
    clock.note("writing_seconds")
    reporter.say(f"{report['decision']['words']}: {report['decision']['reason']}")
    facts = headline_facts(report)
    reporter.metrics(0, {name: value for name, value in facts.items() if isinstance(value, float)})
    counts = {
        "held_out_pairs": len(held_out.pairs),
        "held_out_prompts": len(held_out.prompts),
        "held_out_demonstrations": len(kept_aside),
        "replies": sum(len(replies) for each in statements.values() for replies in each.replies.values()),
    }
    return Outcome(counts=counts, facts=facts, remarks=clock.laps)


def _hear_all(
    checkpoints: Mapping[str, Path],
    held_out: HeldOut,
    demonstrations: Sequence[Conversation],
    *,
    settings: EvaluationSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> tuple[dict[str, Statement], dict[str, Mapping[str, Answer]]]:
    """What each model says, in the order given, and what the baseline thinks of the other models' sampled replies.

    One model is in memory at a time, so the baseline speaks last: by then there are samples for it to score.
    """
    heard: dict[str, Statement] = {}
    reference_samples: dict[str, Mapping[str, Answer]] = {}
    for name in sorted(checkpoints, key=lambda name: name == BASELINE):
        known = held_out.reference if name == BASELINE else None
        with speaking(
            checkpoints[name], model_settings=model, compute=compute, settings=settings, reporter=reporter
        ) as speaker:
            if name == BASELINE:
                reference_samples = {
                    other: speaker.score(sample_questions(statement, held_out)) for other, statement in heard.items()
                }
            heard[name] = question(
                speaker,
                held_out,
                name=name,
                demonstrations=demonstrations,
                settings=settings,
                known=known,
                reporter=reporter,
            )
    return {name: heard[name] for name in checkpoints}, reference_samples


class _Clock:
    """Seconds since the last note, by name; informative only."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now


def _scored_by_all(held_out: HeldOut, statements: Mapping[str, Statement]) -> HeldOut:
    """The held-out set without the pairs that some model could not score, which are counted as left out."""
    kept = [
        at
        for at, row in enumerate(held_out.pairs)
        if all(row["pair_id"] in statement.answers for statement in statements.values())
    ]
    if len(kept) == len(held_out.pairs):
        return held_out
    return replace(
        held_out,
        pairs=[held_out.pairs[at] for at in kept],
        reference=statements[BASELINE].scores_of([held_out.pairs[at] for at in kept]),
        left_out=held_out.left_out + len(held_out.pairs) - len(kept),
    )


def _write_tables(out: Path, material: Material, *, beta: float, evaluation: EvaluationSettings) -> None:
    held_out, rows = material.held_out, []
    reference = material.statements[BASELINE].scores_of(held_out.pairs)
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
    write_table(out / "scores.parquet", pa.Table.from_pylist(rows, schema=SCORES))
    replies = [
        row
        for statement in material.statements.values()
        for said in statement.replies.values()
        for row in reply_rows(said, rules_met(said, held_out, rubric=evaluation.rubric), held_out)
    ]
    write_table(out / "replies.parquet", pa.Table.from_pylist(replies, schema=REPLIES))

"""The evaluation stage: held-out data and checkpoints in, report and tables out. Reads top to bottom."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.evaluation.benchmarks import require_harness
from dpo_pipeline.evaluation.evidence import Material
from dpo_pipeline.evaluation.first_screen import draw_first_screen
from dpo_pipeline.evaluation.headline import headline_facts
from dpo_pipeline.evaluation.hearing import Circumstances, Heard, hear_all, take_benchmarks
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut
from dpo_pipeline.evaluation.judging import make_judges, paid_verdicts, run_judges
from dpo_pipeline.evaluation.memory import Memory
from dpo_pipeline.evaluation.page import render_page
from dpo_pipeline.evaluation.report import build_report, write_report
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.tables import write_tables
from dpo_pipeline.evaluation.training import describe_training, what_is_asked
from dpo_pipeline.evaluation.voices import Voice, model_digest, notes_on_tokenizers
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings

BASE, BASELINE, CHALLENGER, CHAMPION = "base", "sft", "dpo", "champion"


@dataclass(frozen=True, slots=True)
class Panel:
    """Who takes part in an evaluation, in the order shown.

    Attributes:
        voices: The models.
        baseline: Name of the model the challenger is compared with; also the reference of the others.
        challenger: Name of the model under test.
        opponents: Names of the models whose replies are judged against the challenger's and against whom it is decided.
        notes: What a reader should know of the panel, such as a champion that is the challenger itself.
    """

    voices: Sequence[Voice]
    baseline: str
    challenger: str
    opponents: Sequence[str]
    notes: Sequence[str] = ()


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
    champion: Path | None = None,
    known: Sequence[Path] = (),
    warned: Sequence[str] = (),
) -> Outcome:
    """Compare the DPO model with the SFT model it came from, the model before SFT and today's champion.

    Args:
        pairs: The preference_pairs artifact folder.
        demonstrations: Demonstration artifact folders of all drops, as SFT got them.
        sft: The sft_checkpoint artifact folder: the baseline and the reference.
        dpo: The dpo_checkpoint artifact folder: the challenger.
        reference: The reference_logprobs artifact folder.
        out: Where report.json, report.html, first_screen.png and the tables are written.
        work: Folder kept between attempts; holds verdicts of judges that cost money.
        evaluation: What is measured and how.
        dpo_settings: Give beta.
        model: Gives the longest conversation.
        compute: The machine.
        reporter: Hears what is being done, and the headline figures.
        champion: Today's champion, a checkpoint artifact folder; None: there is none yet.
        known: Earlier evaluation_report artifact folders, newest first; nothing asked there is asked again.
        warned: What the ledger says of the models that a reader must know, such as that one learned what is forgotten.

    Returns:
        Counts of what was asked, the headline figures, and the seconds of each part as remarks.
    """
    held_out, kept_aside = what_is_asked(pairs, demonstrations, sft, reference, evaluation, reporter)
    memory = Memory(known)
    panel = make_panel(sft, dpo, champion, show_base=evaluation.show_base)
    return weigh(
        replace(panel, notes=[*panel.notes, *warned]),
        held_out,
        kept_aside,
        out,
        work=work,
        beta=dpo_settings.beta,
        where=Circumstances(evaluation, model, compute, memory, reporter, tokens=[reference]),
    )


def make_panel(sft: Path, dpo: Path, champion: Path | None, *, show_base: bool) -> Panel:
    """Base, SFT, DPO and champion; a champion that is one of them is not heard twice but said to be."""
    voices = [Voice(BASE, sft, is_before_training=True)] if show_base else []
    voices += [Voice(BASELINE, sft), Voice(CHALLENGER, dpo)]
    opponents, notes = [BASELINE], []
    if champion is not None:
        digest = model_digest(champion)
        twin = next((voice.name for voice in voices[-2:] if voice.identity == digest), None)
        if twin is None:
            voices.append(Voice(CHAMPION, champion))
            opponents.append(CHAMPION)
        else:
            notes.append(f"Today's champion is this very {twin} checkpoint, so it has no column of its own.")
    return Panel(voices, BASELINE, CHALLENGER, opponents, notes)


def weigh(
    panel: Panel,
    held_out: HeldOut,
    demonstrations: Sequence[Conversation],
    out: Path,
    *,
    work: Path,
    beta: float,
    where: Circumstances,
) -> Outcome:
    """Question the models of a panel, have their replies judged, and write report and tables.

    Args:
        panel: Who takes part.
        held_out: Pairs and prompts.
        demonstrations: Held-out demonstrations the perplexity is measured on.
        out: Where everything is written.
        work: Folder kept between attempts.
        beta: Scale of the implicit reward.
        where: Settings, machine, what is known, and who hears of progress.
    """
    clock, settings, reporter = _Clock(), where.settings, where.reporter
    if settings.benchmarks is not None:
        require_harness()
    reporter.say(
        f"{len(held_out.pairs)} held-out pairs, {len(held_out.prompts)} prompts to reply to, for "
        f"{', '.join(voice.name for voice in panel.voices)}"
    )
    heard = hear_all(panel.voices, held_out, demonstrations, baseline=panel.baseline, where=where)
    clock.note("models_seconds")
    held_out = _scored_by_all(held_out, heard)
    benchmarks = take_benchmarks(panel.voices, where)
    clock.note("benchmarks_seconds")
    judges = make_judges(
        settings,
        work=work,
        device=choose_device(where.compute).kind,
        reporter=reporter,
        known=where.memory.verdicts,
    )
    judged = run_judges(
        judges,
        held_out,
        challenger=heard.statements[panel.challenger],
        opponents=[heard.statements[name] for name in panel.opponents],
        decoding=settings.judged_decoding,
        reporter=reporter,
    )
    clock.note("judges_seconds")
    training = {
        voice.name: {
            "words": voice.words,
            "tokenizer": voice.tokenizer,
            **({} if voice.is_before_training else describe_training(voice.checkpoint)),
        }
        for voice in panel.voices
        if voice.name in heard.statements
    }
    notes = [*panel.notes, *(f"{name} is missing: {why}." for name, why in heard.absent.items())]
    notes += notes_on_tokenizers(panel.voices, panel.challenger)
    material = Material(
        held_out,
        heard.statements,
        heard.reference_samples,
        judged,
        demonstrations,
        training,
        baseline=panel.baseline,
        challenger=panel.challenger,
        opponents=panel.opponents,
        notes=notes,
        benchmarks={name: [row.as_dict() for row in taken.rows] for name, taken in benchmarks.items()},
        benchmark_answers={name: taken.answers for name, taken in benchmarks.items()},
    )
    report = build_report(material, settings=settings, beta=beta)
    clock.note("figures_seconds")
    write_tables(out, material, beta=beta, rubric=settings.rubric)
    where.memory.write(out, paid_verdicts(judges))
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
        "held_out_demonstrations": len(demonstrations),
        "replies": sum(len(replies) for each in heard.statements.values() for replies in each.replies.values()),
    }
    return Outcome(counts=counts, facts=facts, remarks=clock.laps)


class _Clock:
    """Seconds since the last note, by name; informative only."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def note(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now


def _scored_by_all(held_out: HeldOut, heard: Heard) -> HeldOut:
    """The held-out set without the pairs that some model could not score, which are counted as left out."""
    everyone = heard.statements.values()
    kept = [row for row in held_out.pairs if all(row["pair_id"] in each.answers for each in everyone)]
    return replace(held_out, pairs=kept, reference=None, left_out=held_out.left_out + len(held_out.pairs) - len(kept))

"""One point of a sweep: train from the shared SFT checkpoint, evaluate against it, keep the report and not the weights.

Tables, reference log-probs and SFT's own replies are there already; a point costs its DPO and its scoring.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.dpo.train import train_dpo
from dpo_pipeline.evaluation.evaluate import BASELINE, CHALLENGER, Panel, weigh
from dpo_pipeline.evaluation.hearing import Circumstances
from dpo_pipeline.evaluation.held_out import read_held_out
from dpo_pipeline.evaluation.memory import Memory
from dpo_pipeline.evaluation.settings import EvaluationSettings, SweepSettings
from dpo_pipeline.evaluation.training import demonstrations_of
from dpo_pipeline.evaluation.voices import Voice
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings

TRAINING_FILES = ("training.json", "metrics.jsonl", "curves.png")


def run_point(  # noqa: PLR0913 - the keywords are the contract with the orchestration
    pairs: Path,
    demonstrations: Sequence[Path],
    sft: Path,
    reference: Path,
    out: Path,
    *,
    work: Path,
    dpo: DpoSettings,
    evaluation: EvaluationSettings,
    sweep: SweepSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
    known: Sequence[Path] = (),
) -> Outcome:
    """Train and evaluate one point; an attempt that was stopped is resumed from the work folder.

    Args:
        pairs: The preference_pairs artifact folder.
        demonstrations: Demonstration artifact folders of all drops, as SFT got them.
        sft: The sft_checkpoint artifact folder every point starts from.
        reference: The reference_logprobs artifact folder.
        out: Empty folder; gets the point's report and training curves, and `model/` if weights are kept.
        work: Folder kept between attempts.
        dpo: Settings of this point.
        evaluation: What is measured.
        sweep: How many prompts are replied to, and whether weights are kept.
        model: Gives max_length, adapter and seed.
        compute: The machine.
        reporter: Hears sentences, and numbers by step.
        known: Earlier reports; what SFT was asked there is not asked again.
    """
    checkpoint = work / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir(parents=True)
    trained = train_dpo(
        pairs,
        reference,
        sft,
        checkpoint,
        work=work / "training",
        dpo=dpo,
        model=model,
        compute=compute,
        reporter=reporter,
    )
    settings = evaluation.model_copy(update={"generation_count": sweep.prompts, "show_base": False})
    conversations = demonstrations_of(sft, demonstrations, pairs)
    held_out = read_held_out(
        pairs, reference, prompt_count=sweep.prompts, learned=conversations.train, reporter=reporter
    )
    found = weigh(
        Panel([Voice(BASELINE, sft), Voice(CHALLENGER, checkpoint)], BASELINE, CHALLENGER, [BASELINE]),
        held_out,
        conversations.held_out[: settings.demonstration_count],
        out,
        work=work / "judges",
        beta=dpo.beta,
        where=Circumstances(settings, model, compute, Memory(known), reporter, tokens=[reference]),
    )
    for name in TRAINING_FILES:
        if (checkpoint / name).exists():
            shutil.copy(checkpoint / name, out / name)
    if sweep.keep_weights:
        shutil.copytree(checkpoint / "model", out / "model")
    point = {
        "beta": dpo.beta,
        "learning_rate": dpo.optimizer.learning_rate,
        "loss": dpo.loss.value,
        "epochs": dpo.epochs,
    }
    steps = {name: trained.counts[name] for name in ("steps", "tokens")}
    return replace(
        found,
        counts={**found.counts, **steps},
        facts={**point, **found.facts},
        remarks={**trained.remarks, **found.remarks},
    )

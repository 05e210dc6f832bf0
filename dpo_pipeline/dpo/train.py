"""Direct preference optimization, top to bottom: checkpoint + pairs + reference table -> policy."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.dpo.comparisons import (
    METRICS,
    ReferenceLogps,
    assert_same_policy,
    losses_and_sums,
    validate,
)
from dpo_pipeline.dpo.pairs import TrainingPairs, read_training_pairs
from dpo_pipeline.dpo.reference import reference_of
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.modeling import CODE_VERSION, processes
from dpo_pipeline.modeling.batches import Group, cut_by_tokens, digest_of_groups, pack, plan_steps
from dpo_pipeline.modeling.curves import DPO_PANELS
from dpo_pipeline.modeling.device import capacity_in_words, choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.forward import Scorer, make_scorer
from dpo_pipeline.modeling.guard import guard
from dpo_pipeline.modeling.optimizer import make_optimizer, take_means
from dpo_pipeline.modeling.policy import open_for_training, parameter_counts, policy_digest
from dpo_pipeline.modeling.preflight import require_fit
from dpo_pipeline.modeling.session import Session, recent_mean, write_training
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings
from dpo_pipeline.modeling.spawning import in_processes
from dpo_pipeline.modeling.stopping import Watched, is_time_to_validate
from dpo_pipeline.modeling.template import losses_in_words

FINAL = ("loss", "rewards/margin", "rewards/accuracy")
"""Metrics whose mean over the last steps is a fact of the artifact."""


@capacity_in_words("training")
@in_processes
def train_dpo(  # noqa: PLR0913  the graph's contract: four folders, a work folder, three settings, a reporter
    pairs: Path,
    reference: Path,
    checkpoint: Path,
    out: Path,
    *,
    work: Path,
    dpo: DpoSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> Outcome:
    """Train the checkpoint to prefer what people preferred, held to the reference table.

    Args:
        pairs: The `preference_pairs` artifact folder; its train split is learned.
        reference: The `reference_logprobs` artifact folder, made from the same checkpoint and pairs; the pairs as
            tokens are read from it.
        checkpoint: The `sft_checkpoint` artifact folder.
        out: Empty folder; gets model/, metrics.jsonl, curves.png, training.json.
        work: Folder kept between attempts; an attempt that was stopped is resumed from it.
        dpo: Settings of this stage.
        model: Gives max_length, adapter and seed.
        compute: The machine.
        reporter: Hears sentences, and numbers by step.

    Returns:
        Counts of pairs, groups, steps and tokens; first and final loss; books over the training pairs.

    Raises:
        ArtifactError: If the reference table is not of this checkpoint and these pairs.
        CapacityError: If memory or disk run out.
        TrainingError: If policy and reference differ at the start, a loss is not finite, or another training holds
            the work folder.
        ProcessLostError: If one of several processes ends early; a retry resumes.
    """
    device = choose_device(compute)
    reporter.say(device.sentence)
    require_fit(
        model, compute, device, optimizer=dpo.optimizer.kind, patience=dpo.patience, reporter=reporter, folder=work
    )
    policy, tokenizer = open_for_training(checkpoint / "model", device, settings=model, compute=compute)
    encoder = Encoder(tokenizer, max_length=model.max_length, known=[reference])
    data = read_training_pairs(pairs, encoder, dpo=dpo, seed=model.seed, device=device)
    groups, digest = data.groups, policy_digest(checkpoint / "model")
    frozen = reference_of(data.encoded, reference, policy_digest=digest, precision=device.precision)
    sizes = [len(group.comparisons) for group in groups]
    steps = plan_steps(sizes, batch_size=dpo.batch_size, epochs=dpo.epochs, seed=seed_for(model.seed, "dpo"))
    reporter.say(f"DPO on {sum(sizes)} pairs of {len(groups)} prompts in {len(steps)} steps.")
    for sentence in losses_in_words([*data.cut.values()], data.books.rejected, max_length=model.max_length):
        reporter.say(sentence)
    scorer = make_scorer(policy, device, probe=groups, reporter=reporter)
    assert_same_policy(scorer, groups, frozen)
    optimizer = make_optimizer(policy, dpo.optimizer)
    settings = {"dpo": dpo.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    machine = [device.kind, device.precision, device.batch_tokens, compute.fused_kernels]
    key = digest_of_json([CODE_VERSION, settings, machine, digest, digest_of_groups(chain(groups, data.validation))])

    with Session(
        work,
        key=key,
        steps=len(steps),
        checkpoint_minutes=dpo.checkpoint_minutes,
        watched=Watched.ACCURACY,
        patience=dpo.patience,
        device=device,
        reporter=reporter,
    ) as session:
        session.resume(policy, optimizer, dpo.optimizer)
        with scorer.session():
            policy.train()
            for step in session.remaining():
                batch = [groups[index] for index in steps[step]]
                names = [data.names[comparison.row] for group in batch for comparison in group.comparisons]
                means = backpropagate(scorer, batch, data=data, reference=frozen, dpo=dpo, step=step)
                values = {**session.update(step, loss=means.pop("loss"), examples=names), **means}
                if data.validation and is_time_to_validate(step, steps=len(steps), times=dpo.validations):
                    values |= validate(scorer, data.validation, data=data, reference=frozen, dpo=dpo)
                session.record(step, values, tokens=sum(group.tokens for group in batch))
        session.take_best()
        take_means(optimizer)
        history = session.publish(policy, tokenizer, out, panels=DPO_PANELS, settings=model)
        remarks = session.remarks() | {"tokenized": encoder.tokenized}

    counts = {
        **training_counts(data, tokens=sum(groups[index].tokens for step in steps[: len(history)] for index in step)),
        "steps": len(history),
        "steps_planned": len(steps),
        "published_step": session.published_step,
        **parameter_counts(policy),
    }
    facts = {
        "first_loss": history[0]["loss"],
        **{f"final_{name.rpartition('/')[2]}": recent_mean(history, name) for name in FINAL},
        "stopped_early": session.stopped_early or "no",
        "precision": str(device.precision),
    }
    write_training(out, stage="dpo", settings=settings, counts=counts, facts=facts, left_out=data.left_out)
    return Outcome(counts=counts, facts=facts, books=data.books, remarks=remarks)


def backpropagate(
    scorer: Scorer,
    batch: Sequence[Group],
    *,
    data: TrainingPairs,
    reference: ReferenceLogps,
    dpo: DpoSettings,
    step: int,
) -> dict[str, float]:
    """The step's mean loss into the gradients, micro-batch by micro-batch; the means of what METRICS names.

    Where several processes share the training, the gradients are those of this process's part of the batch and the
    means are over all of it.

    Raises:
        TrainingError: Naming the pairs whose loss is not finite; nothing of their micro-batch is in the gradients.
    """
    device, pair_count = scorer.device, sum(len(group.comparisons) for group in batch)
    sums = torch.zeros(len(METRICS), dtype=torch.float64)
    with processes.faults_shared():
        for part in cut_by_tokens(processes.share_of(batch), batch_tokens=device.batch_tokens):
            packed = pack(part, device.torch)
            losses, of_part = losses_and_sums(scorer, packed, data=data, reference=reference, dpo=dpo)
            names = [data.names[row] for row in packed.rows]
            guard(losses, step=step, names=names, lower="dpo.optimizer.learning_rate or dpo.beta")
            # A mean over the whole step's pairs, so that cutting the step differently changes nothing.
            (losses.sum() / pair_count).backward()
            sums += of_part
    return dict(zip(METRICS, (processes.summed(sums) / pair_count).tolist(), strict=True))


def training_counts(data: TrainingPairs, *, tokens: int) -> dict[str, int]:
    """How many pairs, prompts and tokens went into the training, and how much was cut."""
    return {
        "pairs": data.books.kept["trained"],
        "validation_pairs": data.books.kept["validation"],
        "groups": len(data.groups),
        "prompts_cut": len(data.cut),
        "prompt_tokens_cut": sum(data.cut.values()),
        "tokens": tokens,
    }

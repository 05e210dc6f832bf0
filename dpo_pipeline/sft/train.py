"""Supervised fine-tuning, top to bottom: base model + demonstrations -> checkpoint."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling import CODE_VERSION, processes
from dpo_pipeline.modeling.base import open_base
from dpo_pipeline.modeling.batches import Group, cut_by_tokens, digest_of_groups, pack, plan_steps
from dpo_pipeline.modeling.curves import SFT_PANELS
from dpo_pipeline.modeling.device import Device, capacity_in_words, choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.examples import Replies
from dpo_pipeline.modeling.forward import Scorer, make_scorer
from dpo_pipeline.modeling.guard import guard
from dpo_pipeline.modeling.optimizer import make_optimizer, take_means
from dpo_pipeline.modeling.policy import make_trainable, open_for_training, parameter_counts, policy_digest
from dpo_pipeline.modeling.preflight import require_fit
from dpo_pipeline.modeling.scoring import encode_replies, mean_nll
from dpo_pipeline.modeling.session import Session, recent_mean, write_training
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings
from dpo_pipeline.modeling.spawning import in_processes
from dpo_pipeline.modeling.stopping import Watched, is_kept_aside, is_time_to_validate
from dpo_pipeline.modeling.template import Conversation, LeftOut, losses_in_words
from dpo_pipeline.sft.demonstrations import Demonstrations, read_demonstrations
from dpo_pipeline.sft.settings import SftSettings
from dpo_pipeline.sft.starting import ROLE

ENCODED_AT_ONCE = 4_096


@capacity_in_words("training")
@in_processes
def train_sft(  # noqa: PLR0913  the graph's contract: folders, a work folder, three settings, a reporter
    demonstrations: Sequence[Path],
    pairs: Path,
    out: Path,
    *,
    work: Path,
    start: Path | None = None,
    known: Sequence[Path] = (),
    sft: SftSettings,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> Outcome:
    """Fine-tune the base model on the demonstrations; loss on the last assistant turn only, end of turn included.

    Args:
        demonstrations: `demonstrations` artifact folders of all drops, in order of arrival.
        pairs: The `preference_pairs` artifact folder: its held-out prompts are kept out of training.
        out: Empty folder; gets model/, metrics.jsonl, curves.png, training.json, tokens.parquet.
        work: Folder kept between attempts; an attempt that was stopped is resumed from it.
        start: Folder of a checkpoint artifact to go on from instead of the base model.
        known: Earlier `sft_checkpoint` folders, from which tokens of the same texts are taken over.
        sft: Settings of this stage.
        model: The base model.
        compute: The machine.
        reporter: Hears sentences, and numbers by step.

    Returns:
        Counts of conversations, steps and tokens; the held-out loss; books over the conversations.

    Raises:
        InputError: If no conversation is left to learn from.
        CapacityError: If memory or disk run out.
        TrainingError: If a loss is not finite, or another training holds the work folder.
        ProcessLostError: If one of several processes ends early; a retry resumes.
    """
    device = choose_device(compute)
    reporter.say(device.sentence)
    require_fit(
        model, compute, device, optimizer=sft.optimizer.kind, patience=sft.patience, reporter=reporter, folder=work
    )
    data = read_demonstrations(demonstrations, pairs, settings=sft, seed=model.seed)
    policy, tokenizer = _open(start, data, device, model=model, compute=compute, reporter=reporter)
    encoder = Encoder(tokenizer, max_length=model.max_length, known=known)
    groups, names, validation, held_out_groups, cut = _encode(encoder, data, sft, model, out, reporter=reporter)
    if not groups:
        raise InputError("no demonstration is left to learn from", do=f"Look at the books: {data.books.as_dict()}")
    steps = plan_steps(
        [1] * len(groups), batch_size=sft.batch_size, epochs=sft.epochs, seed=seed_for(model.seed, "sft")
    )
    aside = f"{len(data.held_out)} kept aside" + (f", {len(validation)} to watch it on" if validation else "")
    reporter.say(f"SFT on {len(groups)} conversations in {len(steps)} steps; {aside}.")
    if data.against_permission:
        reporter.say(f"{data.against_permission} of them come from sources that forbid it: a smoke run, not for use.")
    scorer = make_scorer(policy, device, probe=groups, reporter=reporter)
    optimizer = make_optimizer(policy, sft.optimizer)
    settings = {"sft": sft.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    machine = [device.precision, device.batch_tokens, compute.fused_kernels]
    key = digest_of_json(
        [CODE_VERSION, settings, machine, digest_of_groups(chain(groups, validation)), _begun_from(start, model)]
    )

    with Session(
        work,
        key=key,
        steps=len(steps),
        checkpoint_minutes=sft.checkpoint_minutes,
        watched=Watched.LOSS,
        patience=sft.patience,
        device=device,
        reporter=reporter,
    ) as session:
        session.resume(policy, optimizer, sft.optimizer)
        with scorer.session():
            policy.train()
            for step in session.remaining():
                batch = [groups[index] for index in steps[step]]
                examples = [names[index] for index in steps[step]]
                loss = backpropagate(scorer, batch, step=step, names=examples)
                values = {**session.update(step, loss=loss, examples=examples)}
                if validation and is_time_to_validate(step, steps=len(steps), times=sft.validations):
                    values[Watched.LOSS] = validate(scorer, validation)
                session.record(step, values, tokens=sum(group.tokens for group in batch))

        session.take_best()
        take_means(optimizer)
        held_out = mean_nll(policy, held_out_groups, compute=compute, reporter=reporter)
        history = session.publish(policy, tokenizer, out, panels=SFT_PANELS, settings=model)
        remarks = session.remarks() | {"tokenized": encoder.tokenized}

    counts = {
        "conversations": len(groups),
        "held_out_conversations": held_out.conversations,
        "validation_conversations": len(validation),
        "against_permission": data.against_permission,
        "prompts_cut": len(cut),
        "prompt_tokens_cut": sum(cut),
        "steps": len(history),
        "steps_planned": len(steps),
        "published_step": session.published_step,
        "tokens": sum(groups[index].tokens for step in steps[: len(history)] for index in step),
        **parameter_counts(policy),
    }
    facts = {
        "final_loss": recent_mean(history, "loss"),
        "held_out_nll": held_out.mean_nll if held_out.tokens else None,
        "stopped_early": session.stopped_early or "no",
        "precision": str(device.precision),
        "started_from": f"{ROLE} {start.name}" if start else "base",
    }
    write_training(out, stage="sft", settings=settings, counts=counts, facts=facts, left_out={})
    return Outcome(counts=counts, facts=facts, books=data.books, remarks=remarks)


def backpropagate(scorer: Scorer, batch: Sequence[Group], *, step: int, names: Sequence[str]) -> float:
    """The step's mean loss per response token into the gradients, micro-batch by micro-batch; that loss.

    Where several processes share the training, the gradients are those of this process's part of the batch and the
    loss is over all of it.

    Raises:
        TrainingError: Naming the conversations whose loss is not finite.
    """
    name_of = {id(group): name for group, name in zip(batch, names, strict=True)}
    response_tokens = sum(len(group.responses[0]) for group in batch)
    loss = torch.zeros((), dtype=torch.float64)
    with processes.faults_shared():
        for part in cut_by_tokens(processes.share_of(batch), batch_tokens=scorer.device.batch_tokens):
            logps = scorer.logps(pack(part, scorer.device.torch))
            guard(logps, step=step, names=[name_of[id(group)] for group in part], lower="sft.optimizer.learning_rate")
            # A mean over the whole step's tokens, so that cutting the step differently changes nothing.
            nll = -logps.sum() / response_tokens
            nll.backward()
            loss += nll.item()
    return processes.summed(loss).item()


@torch.no_grad()
def validate(scorer: Scorer, groups: Sequence[Group]) -> float:
    """Mean loss per response token of what is kept aside; called inside the scorer's session, leaves it training."""
    scorer.model.eval()
    loss = torch.zeros((), dtype=torch.float64)
    for part in cut_by_tokens(processes.share_of(groups), batch_tokens=scorer.device.batch_tokens):
        loss -= scorer.logps(pack(part, scorer.device.torch)).sum().item()
    scorer.model.train()
    return processes.summed(loss).item() / sum(len(group.responses[0]) for group in groups)


def _open(
    start: Path | None,
    data: Demonstrations,
    device: Device,
    *,
    model: ModelSettings,
    compute: ComputeSettings,
    reporter: Reporter,
) -> tuple[Any, Any]:
    """The base model, or the checkpoint to go on from, and its tokenizer, ready to be trained."""
    if start is not None:
        reporter.say(f"Going on from the champion {start.name[:12]}.")
        return open_for_training(start / "model", device, settings=model, compute=compute)
    policy, tokenizer = open_base(model, corpus=_texts(data.train), device=device)
    return make_trainable(policy, device, settings=model, compute=compute), tokenizer


def _begun_from(start: Path | None, model: ModelSettings) -> str:
    """Which weights: those in a folder by their digest; those of settings or of a pinned hub id the settings name."""
    folder = start / "model" if start else Path(model.path) if model.path else None
    return policy_digest(folder) if folder else "base"


def _texts(conversations: Sequence[Conversation]) -> Any:
    return (message["content"] for conversation in conversations for message in conversation)


def _encode(
    encoder: Encoder, data: Demonstrations, sft: SftSettings, model: ModelSettings, out: Path, *, reporter: Reporter
) -> tuple[Replies, list[str], Replies, Replies, list[int]]:
    """All conversations as groups of one response; their tokens stay in `out`, the books are kept.

    Returns:
        Those to learn from and their names, those to validate on, those held out, cuts of prompts.
    """
    with encoder.keeping_in(out):
        groups, names, validation, cut = _encode_train(encoder, data, sft, model, reporter=reporter)
        held_out = encode_replies(encoder, data.held_out)
    reporter.say(encoder.words)
    return groups, names, validation, held_out, cut


def _encode_train(
    encoder: Encoder, data: Demonstrations, sft: SftSettings, model: ModelSettings, *, reporter: Reporter
) -> tuple[Replies, list[str], Replies, list[int]]:
    groups, names, validation, cut = Replies(), list[str](), Replies(), list[int]()
    left_out = Counter[str]()
    for start in range(0, len(data.train), ENCODED_AT_ONCE):
        talks = data.train[start : start + ENCODED_AT_ONCE]
        prompts, replies = [talk[:-1] for talk in talks], [[talk[-1]["content"]] for talk in talks]
        encoded = encoder.encode(prompts, replies)
        for name, item in zip(data.names[start : start + ENCODED_AT_ONCE], encoded, strict=True):
            if isinstance(item, LeftOut):
                data.books.kept["train"] -= 1
                left_out[str(item)] += 1
                continue
            if item.prompt_tokens_cut:
                cut.append(item.prompt_tokens_cut)
            group = Group(item.prompt, item.responses)
            if is_kept_aside(group, share=sft.validation_share, seed=model.seed):
                validation.append(group)
            else:
                groups.append(group)
                names.append(name)
    data.books.rejected.update(left_out)
    for sentence in losses_in_words(cut, left_out, max_length=model.max_length):
        reporter.say(sentence)
    if validation:
        data.books.kept.update(train=-len(validation), validation=len(validation))
    return groups, names, validation, cut

"""Direct preference optimization, top to bottom: checkpoint + pairs + reference table -> policy."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.dpo.losses import Logps, Rewards, implicit_rewards, preference_losses
from dpo_pipeline.dpo.pairs import read_training_pairs
from dpo_pipeline.dpo.reference import reference_of
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.modeling import CODE_VERSION
from dpo_pipeline.modeling.batches import Group, Packed, cut_by_tokens, digest_of_groups, pack, plan_steps
from dpo_pipeline.modeling.curves import DPO_PANELS
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.forward import Scorer, make_scorer
from dpo_pipeline.modeling.optimizer import make_optimizer
from dpo_pipeline.modeling.policy import open_for_training, parameter_counts, policy_digest
from dpo_pipeline.modeling.preflight import require_fit
from dpo_pipeline.modeling.session import Session, recent_mean, write_training
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, Precision

METRICS = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margin",
    "rewards/accuracy",
    "logps/chosen",
    "logps/rejected",
)

# Largest difference of policy and reference before the first step, in nats per token, that counts as rounding.
SAME_POLICY = {Precision.FP32: 1e-3, Precision.BF16: 1e-1}


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
        reference: The `reference_logprobs` artifact folder, made from the same checkpoint and pairs.
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
    """
    device = choose_device(compute)
    reporter.say(device.sentence)
    require_fit(model, compute, device, optimizer=dpo.optimizer.kind, reporter=reporter, folder=work)
    policy, tokenizer = open_for_training(checkpoint / "model", device, settings=model, compute=compute)
    data = read_training_pairs(pairs, tokenizer, dpo=dpo, model=model, device=device)
    reference_logps = reference_of(
        data.encoded, reference, policy_digest=policy_digest(checkpoint / "model"), precision=device.precision
    )
    groups, books = data.groups, data.books
    steps = plan_steps(
        [len(group.comparisons) for group in groups],
        batch_size=dpo.batch_size,
        epochs=dpo.epochs,
        seed=seed_for(model.seed, "dpo"),
    )
    reporter.say(f"DPO on {books.kept_count} pairs of {len(groups)} prompts in {len(steps)} steps.")
    scorer = make_scorer(policy, device, probe=groups, reporter=reporter)
    assert_same_policy(scorer, groups, reference_logps)
    optimizer = make_optimizer(policy, dpo.optimizer)
    settings = {"dpo": dpo.model_dump(mode="json"), "model": model.model_dump(mode="json")}
    key = digest_of_json([CODE_VERSION, settings, device.precision, device.batch_tokens, digest_of_groups(groups)])

    with Session(
        work, key=key, steps=len(steps), checkpoint_minutes=dpo.checkpoint_minutes, device=device, reporter=reporter
    ) as session:
        session.resume(policy, optimizer, dpo.optimizer)
        with scorer.session():
            policy.train()
            for step in session.remaining():
                batch = [groups[index] for index in steps[step]]
                pair_count = sum(len(group.comparisons) for group in batch)
                sums = torch.zeros(len(METRICS), dtype=torch.float64)
                for part in cut_by_tokens(batch, batch_tokens=device.batch_tokens):
                    packed = pack(part, device.torch)
                    policy_logps = compare(scorer.logps(packed), packed)
                    frozen = frozen_logps(reference_logps, packed, like=policy_logps)
                    weights = policy_logps.chosen.new_tensor([data.weights[row] for row in packed.rows])
                    losses = weights * preference_losses(policy_logps, frozen, dpo)
                    guard(losses, step=step, names=[data.names[row] for row in packed.rows])
                    # A mean over the whole step's pairs, so that cutting the step differently changes nothing.
                    (losses.sum() / pair_count).backward()
                    sums += metric_sums(losses, policy_logps, implicit_rewards(policy_logps, frozen, beta=dpo.beta))
                names = [data.names[comparison.row] for group in batch for comparison in group.comparisons]
                means = dict(zip(METRICS, (sums / pair_count).tolist(), strict=True))
                values = session.update(step, loss=means.pop("loss"), examples=names)
                session.record(step, {**values, **means}, tokens=sum(group.tokens for group in batch))
        history = session.publish(policy, tokenizer, out, panels=DPO_PANELS, settings=model)
        remarks = session.remarks()

    counts = {
        "pairs": books.kept_count,
        "groups": len(groups),
        "prompts_cut": len(data.cut),
        "prompt_tokens_cut": sum(data.cut.values()),
        "steps": len(steps),
        "tokens": sum(groups[index].tokens for step in steps for index in step),
        **parameter_counts(policy),
    }
    facts = {
        "first_loss": history[0]["loss"],
        "final_loss": recent_mean(history, "loss"),
        "final_margin": recent_mean(history, "rewards/margin"),
        "final_accuracy": recent_mean(history, "rewards/accuracy"),
        "precision": str(device.precision),
    }
    write_training(out, stage="dpo", settings=settings, counts=counts, facts=facts, left_out=data.left_out)
    return Outcome(counts=counts, facts=facts, books=books, remarks=remarks)


def compare(logps: torch.Tensor, packed: Packed) -> Logps:
    """The comparisons' log-probs, (M,), from the responses', (S,)."""
    chosen, rejected = logps[packed.winners], logps[packed.losers]
    return Logps(chosen, rejected, packed.lengths[packed.winners], packed.lengths[packed.losers])


def frozen_logps(reference: Mapping[int, tuple[float, float]], packed: Packed, *, like: Logps) -> Logps:
    """The reference's log-probs of the same comparisons, (M,), from the table."""
    values = like.chosen.new_tensor([reference[row] for row in packed.rows])
    return like._replace(chosen=values[:, 0], rejected=values[:, 1])


def metric_sums(losses: torch.Tensor, policy: Logps, rewards: Rewards) -> torch.Tensor:
    """The sums over comparisons of what METRICS names, on the CPU."""
    columns = (
        losses.detach(),
        rewards.chosen,
        rewards.rejected,
        rewards.chosen - rewards.rejected,
        (rewards.chosen > rewards.rejected).to(losses.dtype),
        policy.chosen.detach(),
        policy.rejected.detach(),
    )
    return torch.stack([column.sum() for column in columns]).to("cpu", torch.float64)


def guard(losses: torch.Tensor, *, step: int, names: Sequence[str]) -> None:
    """Stop before the backward pass if a pair's loss is not finite.

    Raises:
        TrainingError: Naming the pairs.
    """
    if bool(torch.isfinite(losses).all()):
        return
    bad = [name for name, is_finite in zip(names, torch.isfinite(losses).tolist(), strict=True) if not is_finite]
    raise TrainingError(
        f"the loss of step {step + 1} is not finite for the pairs {', '.join(bad)}",
        expected="finite numbers",
        do="Look at these pairs; lower dpo.optimizer.learning_rate or dpo.beta if they are sound",
    )


@torch.no_grad()
def assert_same_policy(scorer: Scorer, groups: Sequence[Group], reference: Mapping[int, tuple[float, float]]) -> None:
    """Make sure that training starts where the reference stands: rewards of zero, a loss of ln 2.

    Raises:
        TrainingError: If the log-probs of the first groups differ from the table's by more than rounding.
    """
    packed = pack(groups[:4], scorer.device.torch)
    with scorer.session():
        policy = compare(scorer.logps(packed), packed)
    frozen = frozen_logps(reference, packed, like=policy)
    differences = torch.stack([policy.chosen - frozen.chosen, policy.rejected - frozen.rejected]).abs()
    lengths = torch.stack([policy.chosen_lengths, policy.rejected_lengths])
    worst = float((differences / lengths).max())
    if not worst <= SAME_POLICY[scorer.device.precision]:
        raise TrainingError(
            f"before the first step the policy differs from the reference table by {worst:.2g} nats per token",
            expected="the same model, hence rewards of 0 and a first loss of ln 2",
            do="Materialize reference_logprobs again from this checkpoint",
        )

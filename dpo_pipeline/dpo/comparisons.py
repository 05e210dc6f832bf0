"""From a batch's log-probs to its losses and metrics, and the checks on them. Shapes: S responses, M comparisons."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from dpo_pipeline.core.errors import TrainingError
from dpo_pipeline.dpo.losses import Logps, implicit_rewards, preference_losses
from dpo_pipeline.dpo.pairs import TrainingPairs
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.batches import Group, Packed, cut_by_tokens, pack
from dpo_pipeline.modeling.forward import Scorer
from dpo_pipeline.modeling.settings import Precision

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

ReferenceLogps = npt.NDArray[np.float64]
"""Chosen and rejected log-prob by the pair's row, (rows, 2)."""


def compare(logps: torch.Tensor, packed: Packed) -> Logps:
    """The comparisons' log-probs, (M,), from the responses', (S,)."""
    chosen, rejected = logps[packed.winners], logps[packed.losers]
    return Logps(chosen, rejected, packed.lengths[packed.winners], packed.lengths[packed.losers])


def frozen_logps(reference: ReferenceLogps, packed: Packed, *, like: Logps) -> Logps:
    """The reference's log-probs of the same comparisons, (M,), from the table."""
    values = like.chosen.new_tensor(reference[list(packed.rows)])
    return like._replace(chosen=values[:, 0], rejected=values[:, 1])


def losses_and_sums(
    scorer: Scorer, packed: Packed, *, data: TrainingPairs, reference: ReferenceLogps, dpo: DpoSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted losses, (M,), with gradients, and the sums over comparisons of what METRICS names, on the CPU."""
    policy = compare(scorer.logps(packed), packed)
    frozen = frozen_logps(reference, packed, like=policy)
    weights = policy.chosen.new_tensor(data.weights[list(packed.rows)])
    strengths = policy.chosen.new_tensor(data.strengths[list(packed.rows)])
    losses = weights * preference_losses(policy, frozen, dpo, strengths=strengths)
    rewards = implicit_rewards(policy, frozen, beta=dpo.beta)
    columns = (
        losses.detach(),
        rewards.chosen,
        rewards.rejected,
        rewards.chosen - rewards.rejected,
        (rewards.chosen > rewards.rejected).to(losses.dtype),
        policy.chosen.detach(),
        policy.rejected.detach(),
    )
    return losses, torch.stack([column.sum() for column in columns]).to("cpu", torch.float64)


@torch.no_grad()
def assert_same_policy(scorer: Scorer, groups: Sequence[Group], reference: ReferenceLogps) -> None:
    """Make sure that training starts where the reference stands: rewards of zero, a loss of ln 2.

    Raises:
        TrainingError: If the log-probs of the first groups differ from the table's by more than rounding.
    """
    packed = pack(groups[:4], scorer.device.torch)
    scorer.model.eval()
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


@torch.no_grad()
def validate(
    scorer: Scorer, groups: Sequence[Group], *, data: TrainingPairs, reference: ReferenceLogps, dpo: DpoSettings
) -> dict[str, float]:
    """Loss, margin and accuracy on groups kept aside; called inside the scorer's session, leaves the model training."""
    scorer.model.eval()
    sums, pairs = torch.zeros(len(METRICS), dtype=torch.float64), sum(len(group.comparisons) for group in groups)
    for part in cut_by_tokens(processes.share_of(groups), batch_tokens=scorer.device.batch_tokens):
        packed = pack(part, scorer.device.torch)
        sums += losses_and_sums(scorer, packed, data=data, reference=reference, dpo=dpo)[1]
    scorer.model.train()
    means = dict(zip(METRICS, (processes.summed(sums) / pairs).tolist(), strict=True))
    return {
        "validation/loss": means["loss"],
        "validation/margin": means["rewards/margin"],
        "validation/accuracy": means["rewards/accuracy"],
    }

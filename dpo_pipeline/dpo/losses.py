"""Preference losses as pure functions: tensors in, tensors out. Shape: M comparisons.

With pi the policy, ref the frozen reference, y_w chosen, y_l rejected, and all log-probs summed over response tokens:

    r(y) = beta * (log pi(y|x) - log ref(y|x))            the implicit reward, DPO (arXiv 2305.18290) eq. 5
    h    = (r(y_w) - r(y_l)) / beta                       the margin of log-ratios
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from dpo_pipeline.dpo.settings import DpoLoss, DpoSettings


class Logps(NamedTuple):
    """Log-probs of the chosen and rejected responses, summed over tokens, (M,), and their lengths in tokens, (M,)."""

    chosen: Tensor
    rejected: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor

    @property
    def per_token(self) -> "Logps":
        """The same, averaged over each response's tokens."""
        chosen, rejected = self.chosen / self.chosen_lengths, self.rejected / self.rejected_lengths
        return Logps(chosen, rejected, self.chosen_lengths, self.rejected_lengths)


class Rewards(NamedTuple):
    """Implicit rewards beta * log(pi / ref) of both responses, (M,), detached: for metrics, never for gradients."""

    chosen: Tensor
    rejected: Tensor


def preference_losses(
    policy: Logps, reference: Logps, settings: DpoSettings, *, strengths: Tensor | None = None
) -> Tensor:
    """The loss of each comparison, (M,), in the dtype of the log-probs.

    Args:
        policy: Log-probs with gradients.
        reference: Log-probs of the frozen reference; not looked at where `settings.loss.needs_reference` is false.
        settings: Which loss, beta, label smoothing, the offset by strength, and the weight of the NLL term.
        strengths: Annotators' mean strength toward chosen, (M,); matter only where `settings.strength_offset` is set.

    >>> zero, one = torch.zeros(1), torch.ones(1)
    >>> same = Logps(zero, zero, one, one)
    >>> preference_losses(same, same, DpoSettings()).item()  # policy = reference: -log sigmoid(0) = ln 2
    0.6931471824645996
    """
    if settings.loss.is_length_averaged:
        policy, reference = policy.per_token, reference.per_token
    # ODPO (arXiv 2402.10571): log sigmoid(beta h - offset), so that strong preferences ask for a wider margin.
    offset = settings.strength_offset * strengths / settings.beta if strengths is not None else 0.0
    losses = _of_margin(policy, reference, offset, settings)
    if settings.nll_weight:
        # Iterative RPO (arXiv 2404.19733): the negative log-likelihood of the chosen response, a mean over its tokens.
        average = policy.chosen if settings.loss.is_length_averaged else policy.per_token.chosen
        losses = losses - settings.nll_weight * average
    return losses


def _of_margin(policy: Logps, reference: Logps, offset: Tensor | float, settings: DpoSettings) -> Tensor:
    """The loss as a function of log-ratios, (M,); `offset` is taken off their difference."""
    beta, smoothing = settings.beta, settings.label_smoothing
    if not settings.loss.needs_reference:
        margin = policy.chosen - policy.rejected - offset
        return simpo(margin, beta=beta, gamma=settings.simpo_gamma, smoothing=smoothing)
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    margin = chosen - rejected - offset
    match settings.loss:
        case DpoLoss.ROBUST:
            losses = robust(margin, beta=beta, smoothing=smoothing)
        case DpoLoss.IPO:
            losses = ipo(margin, beta=beta)
        case DpoLoss.HINGE:
            losses = hinge(margin, beta=beta)
        case DpoLoss.APO_ZERO:
            # Each response has a target of its own: half of the offset is asked of either.
            losses = apo_zero(chosen - offset / 2, rejected + offset / 2, beta=beta)
        case DpoLoss.APO_DOWN:
            losses = apo_down(chosen, margin, beta=beta)
        case _:
            losses = sigmoid(margin, beta=beta, smoothing=smoothing)
    return losses


def sigmoid(margin: Tensor, *, beta: float, smoothing: float = 0.0) -> Tensor:
    """The loss of DPO (arXiv 2305.18290, eq. 7), minus log sigmoid of beta h; with smoothing e the conservative cDPO.

    cDPO (E. Mitchell 2023, eq. 3): -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h). TRL ignores `label_smoothing`
    here. On length-averaged log-probs this is the length-normalised loss of Tulu 3 (arXiv 2411.15124) eq. 6.
    """
    return -(1 - smoothing) * logsigmoid(beta * margin) - smoothing * logsigmoid(-beta * margin)


def robust(margin: Tensor, *, beta: float, smoothing: float) -> Tensor:
    """Unbiased under a share e of flipped labels (arXiv 2403.00409, eq. 12).

    [-(1 - e) log sigmoid(beta h) + e log sigmoid(-beta h)] / (1 - 2 e).
    """
    clean, flipped = logsigmoid(beta * margin), logsigmoid(-beta * margin)
    return (-(1 - smoothing) * clean + smoothing * flipped) / (1 - 2 * smoothing)


def ipo(margin: Tensor, *, beta: float) -> Tensor:
    """IPO (arXiv 2310.12036) eq. 17: (h - 1 / (2 beta))^2, on log-probs averaged over tokens as its authors mean it."""
    return (margin - 1 / (2 * beta)) ** 2


def hinge(margin: Tensor, *, beta: float) -> Tensor:
    """SLiC-HF (arXiv 2305.10425) eq. 1 on implicit rewards, as in arXiv 2309.06657: max(0, 1 - beta h)."""
    return torch.relu(1 - beta * margin)


def simpo(margin: Tensor, *, beta: float, gamma: float, smoothing: float = 0.0) -> Tensor:
    """SimPO (arXiv 2405.14734) eq. 6: -log sigmoid(beta (c - r) - gamma beta).

    `margin` is c - r, the difference of the policy's log-probs averaged over tokens; `gamma` the target margin as a
    share of beta.
    """
    return sigmoid(margin - gamma, beta=beta, smoothing=smoothing)


def apo_zero(chosen: Tensor, rejected: Tensor, *, beta: float) -> Tensor:
    """APO-zero (arXiv 2408.06266) eq. 7, chosen up and rejected down: 1 - sigmoid(r_w) + sigmoid(r_l)."""
    return 1 - torch.sigmoid(beta * chosen) + torch.sigmoid(beta * rejected)


def apo_down(chosen: Tensor, margin: Tensor, *, beta: float) -> Tensor:
    """APO-down (arXiv 2408.06266) eq. 8, both down and rejected more: sigmoid(r_w) + 1 - sigmoid(r_w - r_l)."""
    return torch.sigmoid(beta * chosen) + 1 - torch.sigmoid(beta * margin)


def implicit_rewards(policy: Logps, reference: Logps, *, beta: float) -> Rewards:
    """Beta * (log pi - log ref) of both responses, on summed log-probs whatever the loss, detached, (M,)."""
    return Rewards(
        beta * (policy.chosen - reference.chosen).detach(), beta * (policy.rejected - reference.rejected).detach()
    )

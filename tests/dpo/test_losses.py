"""Losses: worked arithmetic, the formulas in float64, TRL's lines, and their gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpo_pipeline.dpo.losses import Logps, implicit_rewards, preference_losses
from dpo_pipeline.dpo.settings import DpoLoss, DpoSettings


def logps(chosen, rejected, lengths=(4, 2)):
    tensors = [torch.tensor([float(value)], dtype=torch.float64) for value in (chosen, rejected)]
    return Logps(*tensors, *(torch.tensor([n]) for n in lengths))


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


def by_hand(pc, pr, rc, rr, nc, nr, settings):
    """The papers' formulas in plain floats."""
    beta, e = settings.beta, settings.label_smoothing
    kind = settings.loss
    if kind.is_length_averaged:
        pc, rc, pr, rr = pc / nc, rc / nc, pr / nr, rr / nr
        nc = 1
    chosen, rejected = pc - rc, pr - rr
    h = chosen - rejected
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    value = {
        DpoLoss.SIGMOID: lambda: -(1 - e) * log_sigmoid(beta * h) - e * log_sigmoid(-beta * h),
        DpoLoss.SIGMOID_NORM: lambda: -(1 - e) * log_sigmoid(beta * h) - e * log_sigmoid(-beta * h),
        DpoLoss.ROBUST: lambda: (-(1 - e) * log_sigmoid(beta * h) + e * log_sigmoid(-beta * h)) / (1 - 2 * e),
        DpoLoss.IPO: lambda: (h - 1 / (2 * beta)) ** 2,
        DpoLoss.HINGE: lambda: max(0.0, 1 - beta * h),
        DpoLoss.SIMPO: lambda: (
            -(1 - e) * log_sigmoid(beta * (pc - pr - settings.simpo_gamma))
            - e * log_sigmoid(-beta * (pc - pr - settings.simpo_gamma))
        ),
        DpoLoss.APO_ZERO: lambda: 1 - sigmoid(beta * chosen) + sigmoid(beta * rejected),
        DpoLoss.APO_DOWN: lambda: sigmoid(beta * chosen) + 1 - sigmoid(beta * h),
    }[kind]()
    return value - settings.nll_weight * pc / nc


def test_policy_equal_to_reference_costs_ln_2():
    same = logps(-7.5, -3.25)
    assert preference_losses(same, same, DpoSettings()).item() == pytest.approx(math.log(2), abs=1e-12)


def test_worked_arithmetic():
    """Policy -2, -5, reference -3, -4, beta 0.5: log-ratios +1 and -1, margin 2, so the loss is ln(1 + e^-1)."""
    policy, reference = logps(-2, -5), logps(-3, -4)
    settings = DpoSettings(beta=0.5)
    assert preference_losses(policy, reference, settings).item() == pytest.approx(math.log1p(math.exp(-1)))
    rewards = implicit_rewards(policy, reference, beta=0.5)
    assert (rewards.chosen.item(), rewards.rejected.item()) == (0.5, -0.5)
    # IPO averages first: (+1/4) - (-1/2) = 3/4, minus 1 / (2 * 0.5) = 1, squared.
    ipo = DpoSettings(loss=DpoLoss.IPO, beta=0.5)
    assert preference_losses(policy, reference, ipo).item() == pytest.approx(0.0625)
    hinge = DpoSettings(loss=DpoLoss.HINGE, beta=0.25)
    assert preference_losses(policy, reference, hinge).item() == pytest.approx(0.5)
    with_nll = DpoSettings(beta=0.5, nll_weight=2.0)  # + 2 * 2 / 4 tokens
    assert preference_losses(policy, reference, with_nll).item() == pytest.approx(1 + math.log1p(math.exp(-1)))


@given(
    st.sampled_from(list(DpoLoss)),
    st.lists(st.floats(-30, -0.1), min_size=4, max_size=4),
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    st.floats(0.02, 2.0),
    st.sampled_from([0.0, 0.1, 0.4]),
    st.sampled_from([0.0, 0.7]),
)
def test_every_loss_is_its_formula(kind, values, lengths, beta, smoothing, nll_weight):
    settings = DpoSettings(loss=kind, beta=beta, label_smoothing=smoothing, nll_weight=nll_weight)
    policy, reference = logps(*values[:2], lengths), logps(*values[2:], lengths)
    found = preference_losses(policy, reference, settings).item()
    assert found == pytest.approx(by_hand(*values, *lengths, settings), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", DpoLoss)
def test_gradients_are_those_of_the_formula(kind):
    settings = DpoSettings(loss=kind, beta=0.3, label_smoothing=0.1, nll_weight=0.5)
    values, lengths = np.array([-6.0, -9.0, -7.0, -8.5]), (5, 3)
    inputs = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in values[:2]]
    policy = Logps(*inputs, *(torch.tensor([n]) for n in lengths))
    preference_losses(policy, logps(*values[2:], lengths), settings).sum().backward()
    for place, tensor in enumerate(inputs):
        up, down = values.copy(), values.copy()
        up[place] += 1e-5
        down[place] -= 1e-5
        slope = (by_hand(*up, *lengths, settings) - by_hand(*down, *lengths, settings)) / 2e-5
        assert tensor.grad.item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_strong_preferences_ask_for_a_wider_margin():
    """Offset 0.5 a unit, strength 2: log sigmoid(beta h - 1), with beta h = 0.5 * 2 that is log sigmoid(0)."""
    policy, reference = logps(-2, -5), logps(-3, -4)
    settings = DpoSettings(beta=0.5, strength_offset=0.5)
    strengths = torch.tensor([2.0], dtype=torch.float64)
    assert preference_losses(policy, reference, settings, strengths=strengths).item() == pytest.approx(math.log(2))


def test_a_loss_without_reference_never_looks_at_it():
    settings = DpoSettings(loss=DpoLoss.SIMPO)
    policy = logps(-2, -5)
    assert not settings.loss.needs_reference
    nothing = logps(math.nan, math.nan)
    assert math.isfinite(preference_losses(policy, nothing, settings).item())


def test_rewards_carry_no_gradient():
    policy = logps(-2, -5)
    policy.chosen.requires_grad_()
    assert not implicit_rewards(policy, logps(-3, -4), beta=0.1).chosen.requires_grad

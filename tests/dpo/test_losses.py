"""Losses and their gradients: worked arithmetic, and the papers' formulas in float64 under torch's autograd."""

import copy
import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from worlds import COMPUTE, random_groups, small_model

from dpo_pipeline.core.books import Books
from dpo_pipeline.dpo.losses import Logps, implicit_rewards, preference_losses
from dpo_pipeline.dpo.pairs import TrainingPairs
from dpo_pipeline.dpo.settings import DpoLoss, DpoSettings
from dpo_pipeline.dpo.train import backpropagate
from dpo_pipeline.modeling.batches import Comparison
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.forward import Scorer, Way


def logps(chosen, rejected, lengths=(4, 2)):
    tensors = [torch.tensor([float(value)], dtype=torch.float64) for value in (chosen, rejected)]
    return Logps(*tensors, *(torch.tensor([n]) for n in lengths))


def log_sigmoid(x):
    return -torch.log1p(torch.exp(-x))


def by_hand(pc, pr, rc, rr, nc, nr, settings, strength=0.0):
    """The papers' formulas for one pair, float64 tensors in and out; the witness."""
    beta, e, m = settings.beta, settings.label_smoothing, settings.strength_offset * strength
    kind = settings.loss
    nll = -pc / nc
    if kind.is_length_averaged:
        pc, rc, pr, rr = pc / nc, rc / nc, pr / nr, rr / nr
    chosen, rejected = beta * (pc - rc), beta * (pr - rr)
    sigmoid = lambda x: 1 / (1 + torch.exp(-x))  # noqa: E731
    cdpo = lambda x: -(1 - e) * log_sigmoid(x) - e * log_sigmoid(-x)  # noqa: E731
    value = {
        DpoLoss.SIGMOID: lambda: cdpo(chosen - rejected - m),
        DpoLoss.SIGMOID_NORM: lambda: cdpo(chosen - rejected - m),
        DpoLoss.ROBUST: lambda: (
            (-(1 - e) * log_sigmoid(chosen - rejected - m) + e * log_sigmoid(rejected - chosen + m)) / (1 - 2 * e)
        ),
        DpoLoss.IPO: lambda: ((chosen - rejected - m - 0.5) / beta) ** 2,
        DpoLoss.HINGE: lambda: torch.clamp(1 - (chosen - rejected - m), min=0),
        DpoLoss.SIMPO: lambda: cdpo(beta * (pc - pr) - settings.simpo_gamma * beta - m),
        DpoLoss.APO_ZERO: lambda: 1 - sigmoid(chosen - m / 2) + sigmoid(rejected + m / 2),
        DpoLoss.APO_DOWN: lambda: sigmoid(chosen) + 1 - sigmoid(chosen - rejected - m),
    }[kind]()
    return value + settings.nll_weight * nll


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
    st.sampled_from([0.0, 0.5]),
)
def test_every_loss_and_its_gradient_are_its_formulas(kind, values, lengths, beta, smoothing, nll_weight, offset):
    settings = DpoSettings(
        loss=kind, beta=beta, label_smoothing=smoothing, nll_weight=nll_weight, strength_offset=offset
    )
    strengths = torch.tensor([1.5], dtype=torch.float64)
    inputs = [torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in values[:2]]
    policy = Logps(*inputs, *(torch.tensor([n]) for n in lengths))
    found = preference_losses(policy, logps(*values[2:], lengths), settings, strengths=strengths)
    again = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values[:2]]
    expected = by_hand(*again, *values[2:], *lengths, settings, strength=1.5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    found.sum().backward()
    expected.backward()
    for ours, theirs in zip(inputs, again, strict=True):
        zero = torch.zeros(())
        assert (zero if ours.grad is None else ours.grad).item() == pytest.approx(
            (zero if theirs.grad is None else theirs.grad).item(), rel=1e-6, abs=1e-9
        )


@pytest.mark.parametrize("kind", DpoLoss)
def test_a_step_is_that_of_pairs_one_by_one_in_float64(kind):
    """The second witness: whole logits of each response alone, the formula, weights and a mean, all float64 autograd.

    A ranking of four with its six pairs is among the groups: as one prompt and four branches it gives the gradient of
    twelve sequences.
    """
    settings = DpoSettings(
        loss=kind, beta=0.3, label_smoothing=0.1, nll_weight=0.5, strength_offset=0.2, simpo_gamma=0.5
    )
    ranking, pair = random_groups(2, [(9, (4, 6, 3, 5)), (6, (7, 2))])
    order = [Comparison(*places, row) for row, places in enumerate(combinations(range(4), 2))]
    groups = [replace(ranking, comparisons=tuple(order)), replace(pair, comparisons=(Comparison(1, 0, 6),))]
    chance = np.random.default_rng(5)
    reference = chance.uniform(-30, -10, (7, 2))
    weights, strengths = chance.uniform(0.1, 1, 7), chance.uniform(0, 3, 7)
    data = TrainingPairs(groups, [], [], list("abcdefg"), weights, strengths, {}, {}, Books(7))

    model = small_model().train()
    witness = copy.deepcopy(model).double()
    scorer = Scorer(model, choose_device(COMPUTE), Way.TRIMMED)
    with scorer.session():
        means = backpropagate(scorer, groups, data=data, reference=reference, dpo=settings, step=0)

    losses = []
    for group in groups:
        for winner, loser, row in group.comparisons:
            responses = group.responses[winner], group.responses[loser]
            policy = [logp_alone(witness, group.prompt, response) for response in responses]
            loss = by_hand(*policy, *reference[row], *map(len, responses), settings, strength=strengths[row])
            losses.append(weights[row] * loss)
    expected = torch.stack(losses).mean()
    expected.backward()
    assert means["loss"] == pytest.approx(expected.item(), rel=1e-5)
    scale = max(float(p.grad.abs().max()) for p in witness.parameters())
    for (name, ours), theirs in zip(model.named_parameters(), witness.parameters(), strict=True):
        assert (ours.grad - theirs.grad).abs().max() < 1e-5 * scale, name


def logp_alone(model, prompt, response):
    ids = torch.tensor([[*prompt.tolist(), *response.tolist()]])
    logps = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(logps[len(prompt) - 1 + place, token] for place, token in enumerate(response.tolist()))


@pytest.mark.filterwarnings("ignore")  # TRL's own
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo_is_that_of_trls_cpo_trainer(smoothing):
    """TRL's gamma is the target margin itself, ours a share of beta, as in SimPO's own recipes (gamma / beta)."""
    from trl.experimental.cpo import CPOTrainer

    settings = DpoSettings(loss=DpoLoss.SIMPO, beta=2.5, simpo_gamma=0.3, label_smoothing=smoothing)
    policy = logps(-20, -31, lengths=(10, 12))
    here = SimpleNamespace(device="cpu")
    theirs = SimpleNamespace(
        alpha=0.0, beta=2.5, simpo_gamma=0.75, label_smoothing=smoothing, loss_type="simpo", accelerator=here
    )
    expected, *_ = CPOTrainer.cpo_loss(theirs, *policy.per_token[:2])
    assert preference_losses(policy, policy, settings).item() == pytest.approx(expected.item(), rel=1e-12)


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

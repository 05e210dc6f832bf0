"""Products by oneDNN where it is faster: the same numbers and gradients, in shapes that come again, on any machine."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import COMPUTE, random_groups, small_model

from dpo_pipeline.modeling import products
from dpo_pipeline.modeling.batches import pack, with_padding
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.forward import Scorer, Way, causal_model
from dpo_pipeline.modeling.policy import attach_adapter, checkpoint_activations
from dpo_pipeline.modeling.settings import AdapterSettings

SIZES = [(70, (5, 9)), (12, (3, 40)), (1, (4, 2, 6))]

has_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


@pytest.fixture(params=[False, pytest.param(True, marks=has_onednn)])
def by_onednn(request, monkeypatch):
    monkeypatch.setattr(products, "is_faster", lambda: request.param)
    monkeypatch.setattr(products, "LEAST_WEIGHTS", 1)
    return request.param


def scores_and_gradients(model, batch, way):
    """By oneDNN and in padded rows if and only if that is faster; else the two sides of a comparison were one."""
    model.zero_grad()
    scorer, lengths = Scorer(model, choose_device(COMPUTE), way), []
    tokens = causal_model(model).get_input_embeddings()
    hook = tokens.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[1]))
    with scorer.session():
        assert any("forward" in vars(module) for module in model.modules()) == products.is_faster()
        scores = scorer.logps(batch)
        (scores * torch.linspace(-1, 1, len(scores), dtype=torch.float64)).sum().backward()
    hook.remove()
    assert lengths == [192 if products.is_faster() else 152]
    return scores.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("shape", [(2, 64), (3,), ()])
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_and_its_gradients_are_torchs_own(by_onednn, bias, shape):
    torch.manual_seed(1)
    layer, x = torch.nn.Linear(48, 80, bias=bias), torch.randn(*shape, 48, requires_grad=True)
    truth = layer(x)
    slope = torch.randn_like(truth)
    wanted = torch.autograd.grad(truth, [x, *layer.parameters()], slope)
    with products.installed(torch.nn.Sequential(layer)):
        found = layer(x)
        assert "Linear" in type(found.grad_fn).__name__
        got = torch.autograd.grad(found, [x, *layer.parameters()], slope)
    assert "forward" not in vars(layer), "it is torch's own again"
    for a, b in zip((found, *got), (truth, *wanted), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@has_onednn
@pytest.mark.parametrize(
    "name", ["llama, grouped queries, tied", "qwen2", "gemma2, caps and windows", "olmo2", "cohere"]
)
@pytest.mark.parametrize("way", [Way.TRIMMED, Way.PACKED])
def test_scores_and_gradients_do_not_depend_on_who_multiplies(name, way, monkeypatch):
    monkeypatch.setattr(products, "LEAST_WEIGHTS", 1)
    model, batch = small_model(name), pack(random_groups(2, SIZES))
    both = []
    for is_faster in (True, False):
        monkeypatch.setattr(products, "is_faster", lambda is_faster=is_faster: is_faster)
        both.append(scores_and_gradients(model, batch, way))
    (found, got), (truth, wanted) = both
    assert (found - truth).abs().max() < 2e-4
    scale = max(float(g.abs().max()) for g in wanted.values())
    assert got.keys() == wanted.keys()
    for name_of, gradient in got.items():
        assert (gradient - wanted[name_of]).abs().max() < 2e-5 * scale, name_of


def test_an_adapter_learns_the_same_and_checkpointing_changes_nothing(by_onednn):
    model = attach_adapter(small_model(), AdapterSettings(rank=4), seed=1).train()
    batch = pack(random_groups(2, SIZES))
    scores, gradients = scores_and_gradients(model, batch, Way.TRIMMED)
    assert gradients
    assert all("lora_" in name for name in gradients)
    checkpoint_activations(model)
    again, recomputed = scores_and_gradients(model, batch, Way.TRIMMED)
    assert torch.equal(again, scores)
    assert all(torch.equal(recomputed[name], gradient) for name, gradient in gradients.items())


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 30), min_size=1, max_size=3)), min_size=1),
    st.sampled_from([1, 8, 64]),
)
def test_padding_reaches_the_multiple_and_moves_nothing(sizes, multiple):
    """Law: every length is a multiple, at least one token is added, and what was there stays where it was."""
    batch = pack(random_groups(1, sizes))
    padded, added = with_padding(batch, multiple)
    assert 1 <= added <= multiple
    assert padded.tokens == batch.tokens + added
    for name in ("predictors", "needed", "targets"):
        before, after = getattr(batch, name), getattr(padded, name)
        assert len(after) % multiple == 0
        assert torch.equal(after[: len(before)], before)
        assert name == "targets" or (after[len(before) :] == padded.tokens - 1).all()
    assert torch.equal(padded.input_ids[:, : batch.tokens], batch.input_ids)
    assert padded.tokens % multiple == 0


@has_onednn
def test_where_it_is_faster_onednn_multiplies(monkeypatch):
    monkeypatch.setattr(products, "_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert products.is_faster.__wrapped__(), "or torch no longer has the operator by this name"


def test_who_multiplies_is_a_fact_of_the_machine(monkeypatch):
    monkeypatch.setattr(products, "_vendor", lambda: "GenuineIntel")
    assert not products.is_faster.__wrapped__(), "MKL is at its best there"
    monkeypatch.setattr(products, "_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not products.is_faster.__wrapped__(), "and as good as oneDNN without AVX-512"

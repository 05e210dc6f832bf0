"""Log-probs of tokens tile by tile, against float64 autograd over whole logits."""

import pytest
import torch

from dpo_pipeline.modeling import head, products
from dpo_pipeline.modeling.head import Finish, bytes_of_a_logit, token_logps

FINISHES = [Finish(), Finish(scale=0.3), Finish(cap=2.0), Finish(scale=2.0, cap=1.5)]


def witness(hidden, weight, bias, targets, finish):
    """The formula in float64, whole logits at once."""
    inputs = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight, bias)]
    logits = (inputs[0] @ inputs[1].T + inputs[2]) * finish.scale
    logits = logits if finish.cap is None else finish.cap * torch.tanh(logits / finish.cap)
    logps = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    return logps, inputs


@pytest.mark.parametrize("tile", [1, 100, 1 << 20])
@pytest.mark.parametrize("finish", FINISHES)
def test_values_and_gradients_are_those_of_the_formula(tile, finish, monkeypatch):
    monkeypatch.setitem(head.TILE_ELEMENTS, "cpu", tile)
    monkeypatch.setattr(head, "LEAST_ROWS", 1)
    torch.manual_seed(0)
    tensors = [torch.randn(13, 8), torch.randn(29, 8), torch.randn(29)]
    hidden, weight, bias = (tensor.requires_grad_() for tensor in tensors)
    targets, pull = torch.randint(29, (13,)), torch.randn(13)
    logps = token_logps(hidden, weight, bias, targets, finish=finish)
    expected, inputs = witness(hidden, weight, bias, targets, finish)
    assert (logps - expected).abs().max() < 1e-5
    (logps * pull).sum().backward()
    (expected * pull.double()).sum().backward()
    for ours, theirs in zip((hidden, weight, bias), inputs, strict=True):
        assert (ours.grad - theirs.grad).abs().max() < 1e-5


def test_frozen_weights_cost_no_gradient():
    hidden, weight = torch.randn(5, 8, requires_grad=True), torch.randn(29, 8)
    token_logps(hidden, weight, None, torch.randint(29, (5,))).sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_log_softmax_of_bf16_logits_is_fp32():
    """Given the logits that bf16 products give, what comes out is their log-softmax in float64, to fp32's rounding."""
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(40, 64), torch.randn(500, 64) / 8, torch.randint(500, (40,))
    with torch.autocast("cpu", torch.bfloat16):
        logps = token_logps(hidden, weight, None, targets)
    logits = torch.nn.functional.linear(hidden.bfloat16(), weight.bfloat16())
    expected = logits.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert logps.dtype == torch.float32
    assert (logps - expected).abs().max() < 1e-5
    in_bf16 = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    assert (in_bf16 - expected).abs().max() > 1e-3, "which bf16 would not be"


@pytest.mark.parametrize(("dtype", "compute_bytes"), [(torch.float32, 4.0), (torch.bfloat16, 2.0)])
def test_a_tile_takes_what_the_plan_says(dtype, compute_bytes):
    """Counted by torch's profiler on a CPU, where no Triton is, from before the product until after the reduction."""
    hidden, weight = torch.randn(128, 16).to(dtype), torch.randn(4_096, 16).to(dtype)
    targets = torch.zeros(128, dtype=torch.long)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        token_logps(hidden, weight, None, targets)
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak == pytest.approx(128 * 4_096 * bytes_of_a_logit("cpu", compute_bytes), rel=0.02)


def test_where_torch_multiplies_the_gradient_of_the_output_matrix_is_added_up_in_place(monkeypatch):
    """A backward pass then holds one fp32 matrix of that size, not two."""
    monkeypatch.setattr(products, "is_faster", lambda: False)
    size = 4_096 * 512
    hidden, weight = torch.randn(4, 512), torch.randn(4_096, 512, requires_grad=True)
    scores = token_logps(hidden, weight, None, torch.zeros(4, dtype=torch.long)).sum()
    with torch.profiler.profile(profile_memory=True) as profile:
        scores.backward()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert peak / (4 * size) == pytest.approx(1, abs=0.2)


def test_a_card_without_triton_needs_as_much_as_a_cpu(monkeypatch):
    monkeypatch.setattr(head, "_triton_kernels", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert bytes_of_a_logit("cuda", 2.0) == bytes_of_a_logit("cpu", 2.0) == 10
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bytes_of_a_logit("cuda", 2.0) == 4

"""Every way of computing log-probs gives the model's own: architectures, groups, gradients, fallbacks."""

from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import ARCHITECTURES, COMPUTE, Notes, random_groups, small_model

from dpo_pipeline.modeling import attention
from dpo_pipeline.modeling.attention import Layout, VarlenPlan
from dpo_pipeline.modeling.batches import pack
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.forward import Scorer, Way, make_scorer
from dpo_pipeline.modeling.policy import attach_adapter, checkpoint_activations
from dpo_pipeline.modeling.settings import AdapterSettings, Precision

SIZES = [(7, (5, 9)), (12, (3,)), (1, (4, 2, 6)), (10, (1, 1))]


def logps_of(model, batch, way):
    scorer = Scorer(model, choose_device(COMPUTE), way)
    with scorer.session():
        return scorer.logps(batch)


def gradients(model, batch, way):
    model.zero_grad()
    weights = torch.linspace(-1, 1, len(batch.lengths), dtype=torch.float64)
    scorer = Scorer(model, choose_device(COMPUTE), way)
    with scorer.session():
        (scorer.logps(batch) * weights).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def one_by_one(model, groups):
    """The plainest witness: each response alone behind its prompt, the model's whole logits, summed."""
    sums = []
    for group in groups:
        for response in group.responses:
            ids = torch.tensor([[*group.prompt.tolist(), *response.tolist()]])
            logps = model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
            start = len(group.prompt)
            sums.append(sum(logps[start - 1 + i, token] for i, token in enumerate(response.tolist())))
    return torch.stack(sums)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_and_padded_log_probs_are_the_models_own(name):
    model = small_model(name).eval()
    groups = random_groups(3, SIZES)
    with torch.no_grad():
        truth = one_by_one(model, groups)
        for way in Way:
            found = logps_of(model, pack(groups), way)
            assert (found - truth).abs().max() < 2e-4, way


@pytest.mark.parametrize("name", ["llama, grouped queries, tied", "qwen3", "gemma2, caps and windows", "cohere"])
def test_gradients_are_the_same_every_way(name):
    model = small_model(name)
    batch = pack(random_groups(4, SIZES))
    padded = gradients(model, batch, Way.PADDED)
    scale = max(float(g.abs().max()) for g in padded.values())
    for way in (Way.TRIMMED, Way.PACKED):
        for parameter, gradient in gradients(model, batch, way).items():
            assert (gradient - padded[parameter]).abs().max() < 2e-5 * scale, (way, parameter)


def test_adapter_gradients_are_the_same_every_way():
    model = attach_adapter(small_model(), AdapterSettings(rank=4), seed=1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = pack(random_groups(5, SIZES))
    padded, packed = gradients(model, batch, Way.PADDED), gradients(model, batch, Way.TRIMMED)
    assert padded.keys() == packed.keys()
    assert all("lora_" in name for name in packed)
    for name, gradient in packed.items():
        assert torch.allclose(gradient, padded[name], rtol=1e-3, atol=1e-5), name


def test_gradient_checkpointing_changes_nothing():
    model, batch = small_model().train(), pack(random_groups(6, SIZES))
    straight = gradients(model, batch, Way.TRIMMED)
    checkpoint_activations(model)
    for name, gradient in gradients(model, batch, Way.TRIMMED).items():
        assert torch.equal(gradient, straight[name]), name


def test_bf16_is_close_to_fp32():
    model, batch = small_model().eval(), pack(random_groups(7, SIZES))
    device = choose_device(COMPUTE.model_copy(update={"precision": Precision.BF16}))
    scorer = Scorer(model, device, Way.TRIMMED)
    with torch.no_grad(), scorer.session():
        found = scorer.logps(batch)
    with torch.no_grad():
        difference = (found - logps_of(model, batch, Way.TRIMMED)).abs() / batch.lengths
    assert difference.max() < 0.1


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 7), min_size=1, max_size=4)), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_packing_is_blind_to_neighbours(sizes, seed):
    """A response's log-prob does not depend on what else is in its group or batch."""
    model = small_model(num_hidden_layers=2).eval()
    groups = random_groups(seed, sizes)
    with torch.no_grad():
        found = logps_of(model, pack(groups), Way.TRIMMED)
        assert (found - one_by_one(model, groups)).abs().max() < 2e-4


@pytest.mark.parametrize("window", [None, 4])
def test_one_variable_length_call_is_the_same_attention(window, monkeypatch):
    """The kernel for CUDA, played by its definition: what it is handed adds up to the same attention."""
    layout = Layout(((5, (4, 3)), (2, (6,)), (3, (1, 2, 2))), torch.device("cpu"))
    plan, length = VarlenPlan(layout), sum(layout.pieces)
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, heads, length, 8) for heads in (4, 2, 2))

    def by_definition(q, k, v, q_bounds, k_bounds, longest_q, longest_k, *, scale, window_size, enable_gqa):
        assert (longest_q, longest_k) == (plan.query_bounds.diff().max(), plan.key_bounds.diff().max())
        assert enable_gqa
        outputs = []
        for n in range(len(q_bounds) - 1):
            rows, columns = slice(q_bounds[n], q_bounds[n + 1]), slice(k_bounds[n], k_bounds[n + 1])
            scores = torch.einsum("qhd,khd->hqk", q[rows], k[columns].repeat_interleave(2, 1)) * scale
            behind = torch.arange(k[columns].shape[0]) - torch.arange(q[rows].shape[0])[:, None]
            behind = (k[columns].shape[0] - q[rows].shape[0]) - behind
            left, right = window_size
            seen = (behind >= -right) & ((left < 0) | (behind <= left))
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            outputs.append(torch.einsum("hqk,khd->qhd", weights, v[columns].repeat_interleave(2, 1)))
        return torch.cat(outputs)

    from torch.nn.attention import varlen

    monkeypatch.setattr(varlen, "varlen_attn", by_definition)
    terms = attention.Terms(scale=0.3, dropout=0.0, window=window, cap=None)
    one_call = attention._varlen(query, key, value, layout=layout, terms=terms)
    split = attention._split(query, key, value, layout=layout, terms=terms)
    assert torch.allclose(one_call, split, atol=1e-6)


def test_the_cheapest_right_way_is_taken_and_said():
    notes = Notes()
    scorer = make_scorer(small_model(), choose_device(COMPUTE), probe=random_groups(8, SIZES), reporter=notes)
    assert scorer.way is Way.TRIMMED
    assert "agree with the model's own" in notes.sentences[-1]


def test_attention_sinks_are_not_ours_and_the_padded_way_is_taken():
    config = {"num_local_experts": 2, "num_experts_per_tok": 1, "layer_types": ["full_attention"] * 2}
    from transformers import AutoModelForCausalLM, GptOssConfig

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(GptOssConfig(vocab_size=64, num_key_value_heads=2, **sizes, **config))
    notes = Notes()
    scorer = make_scorer(model, choose_device(COMPUTE), probe=random_groups(9, SIZES), reporter=notes)
    assert scorer.way is Way.PADDED
    assert "attention with s_aux" in notes.sentences[-1]


def test_a_model_with_positions_of_its_own_is_scored_on_padded_rows():
    """Bloom counts positions by columns (ALiBi), so that a packed row would be one long text to it."""
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)).eval()
    groups, notes = random_groups(9, SIZES), Notes()
    scorer = make_scorer(model, choose_device(COMPUTE), probe=groups, reporter=notes)
    assert scorer.way is Way.PADDED
    assert "slower and takes more memory; packed" in notes.sentences[-1]
    with torch.no_grad():
        assert (logps_of(model, pack(groups), scorer.way) - one_by_one(model, groups)).abs().max() < 2e-4


@pytest.mark.parametrize(
    ("error", "is_raised"),
    [
        (RuntimeError("shapes"), False),
        (ImportError("no varlen_attn in this torch"), False),
        (torch.OutOfMemoryError(), True),
    ],
)
def test_the_probe_falls_back_on_a_fault_but_not_on_missing_memory(error, is_raised, monkeypatch):
    def fails(self, batch):
        raise error

    monkeypatch.setattr(Scorer, "_packed", fails)
    notes, device = Notes(), choose_device(COMPUTE)
    with pytest.raises(torch.OutOfMemoryError) if is_raised else nullcontext():
        scorer = make_scorer(small_model(), device, probe=random_groups(8, SIZES), reporter=notes)
    if not is_raised:
        assert scorer.way is Way.PADDED
        assert f"{type(error).__name__}: {error}" in notes.sentences[-1]


def test_a_model_that_disagrees_is_scored_on_padded_rows(monkeypatch):
    monkeypatch.setattr(
        "dpo_pipeline.modeling.forward.Finish.of", lambda config: type("", (), {"scale": 2, "cap": None})
    )
    notes = Notes()
    scorer = make_scorer(small_model(), choose_device(COMPUTE), probe=random_groups(8, SIZES), reporter=notes)
    assert scorer.way is Way.PADDED
    assert "differs by" in notes.sentences[-1]


def test_layers_of_another_kind_are_refused_by_name():
    model = small_model()
    model.config.layer_types = ["full_attention", "linear_attention", "full_attention"]
    notes = Notes()
    scorer = make_scorer(model, choose_device(COMPUTE), probe=random_groups(8, SIZES), reporter=notes)
    assert scorer.way is Way.PADDED
    assert "layers of kind linear_attention" in notes.sentences[-1]

"""What only a CUDA card can show: flash attention, bf16, fused kernels, 4-bit bases, 8-bit optimizers, its memory."""

import importlib.util
import math

import pytest
import torch
import worlds
from test_head import FINISHES, witness
from worlds import ADAPTED, ARCHITECTURES, DPO, SCRATCH, Notes, Stop, World, random_groups, small_model

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.dpo.reference import compute_reference
from dpo_pipeline.modeling import attention, head
from dpo_pipeline.modeling.batches import pack
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.forward import Scorer, Way, make_scorer
from dpo_pipeline.modeling.policy import checkpoint_activations, fuse_kernels, load_policy
from dpo_pipeline.modeling.scoring import score_pairs
from dpo_pipeline.modeling.settings import AdapterSettings, ComputeSettings, ModelSettings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")]

BF16 = ComputeSettings(device="cuda")
FP32 = ComputeSettings(device="cuda", precision="fp32")
CPU = ComputeSettings(device="cpu", threads=4)
SIZES = [(7, (5, 9)), (12, (3,)), (1, (4, 2, 6)), (10, (1, 1)), (90, (30, 70)), (200, (1, 60, 33))]
needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
needs_liger = pytest.mark.skipif(importlib.util.find_spec("liger_kernel") is None, reason="needs liger-kernel")


def small_on_card(name="llama", **changes):
    return small_model(name, max_position_embeddings=512, **changes).cuda()


def logps_and_gradients(model, compute, way, groups):
    """Log-probs of every response, and the gradient of a weighted sum of them as one long vector."""
    device = choose_device(compute)
    scorer, batch = Scorer(model, device, way), pack(groups, device.torch)
    model.zero_grad()
    with scorer.session():
        logps = scorer.logps(batch)
        (logps * torch.linspace(-1, 1, len(logps), device=logps.device, dtype=logps.dtype)).sum().backward()
    return logps.detach(), torch.cat([p.grad.float().ravel() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("finish", FINISHES)
@pytest.mark.parametrize("vocabulary", [29, 9001])
def test_the_heads_kernels_give_the_formulas_values_and_gradients(finish, vocabulary, dtype, monkeypatch):
    assert head._kernels(torch.empty(0, device="cuda")) is not None
    monkeypatch.setitem(head.TILE_ELEMENTS, "cuda", 40 * vocabulary)
    monkeypatch.setattr(head, "LEAST_ROWS", 1)
    torch.manual_seed(0)
    tensors = [torch.randn(97, 16), torch.randn(vocabulary, 16), torch.randn(vocabulary)]
    hidden, weight, bias = (tensor.to("cuda", dtype).requires_grad_() for tensor in tensors)
    targets, pull = torch.randint(vocabulary, (97,), device="cuda"), torch.randn(97, device="cuda")
    expected, inputs = witness(hidden, weight, bias, targets, finish)
    logps = head.token_logps(hidden, weight, bias, targets, finish=finish)
    assert (logps - expected).abs().max() < (1e-4 if dtype == torch.float32 else 0.1)
    (logps * pull).sum().backward()
    (expected * pull.double()).sum().backward()
    for ours, theirs in zip((hidden, weight, bias), inputs, strict=True):
        distance = (ours.grad - theirs.grad).norm() / theirs.grad.norm()
        assert distance < (1e-4 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_fp32_the_packed_ways_are_the_padded_one(name):
    torch.backends.cuda.matmul.allow_tf32 = False
    model, groups = small_on_card(name).eval(), random_groups(3, SIZES)
    truth, slope = logps_and_gradients(model, FP32, Way.PADDED, groups)
    for way in (Way.TRIMMED, Way.PACKED):
        found, gradient = logps_and_gradients(model, FP32, way, groups)
        assert (found - truth).abs().max() < 2e-3, way
        assert (gradient - slope).norm() / slope.norm() < 1e-3, way


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_in_bf16_flash_attention_is_as_near_to_fp32_as_the_models_own_pass(name):
    model, groups = small_on_card(name).eval(), random_groups(3, SIZES)
    truth, slope = logps_and_gradients(model, FP32, Way.PADDED, groups)
    own, own_slope = logps_and_gradients(model, BF16, Way.PADDED, groups)
    found, gradient = logps_and_gradients(model, BF16, Way.TRIMMED, groups)
    lengths = torch.tensor([len(r) for g in groups for r in g.responses], device="cuda")
    assert ((found - truth).abs() / lengths).max() < max(2 * ((own - truth).abs() / lengths).max(), 1e-2)
    assert (gradient - slope).norm() / slope.norm() < max(2 * (own_slope - slope).norm() / slope.norm(), 5e-2)


def test_the_variable_length_kernel_is_the_way_taken(monkeypatch):
    """Otherwise all of the above would pass on the slow path."""
    calls = []
    kernel = attention.varlen_kernel()
    assert kernel is not None, "this torch has no variable-length attention with windows"
    monkeypatch.setattr(attention, "varlen_kernel", lambda: lambda *a, **k: calls.append(1) or kernel(*a, **k))
    model, notes = small_on_card("llama, grouped queries, tied").eval(), Notes()
    scorer = make_scorer(model, choose_device(BF16), probe=random_groups(3, SIZES), reporter=notes)
    assert scorer.way is Way.TRIMMED, notes.sentences
    assert len(calls) == 3


def test_recomputed_activations_give_the_same_gradients():
    model, groups = small_on_card("llama, grouped queries, tied").train(), random_groups(3, SIZES)
    _, straight = logps_and_gradients(model, BF16, Way.TRIMMED, groups)
    checkpoint_activations(model)
    _, again = logps_and_gradients(model, BF16, Way.TRIMMED, groups)
    assert (again - straight).norm() / straight.norm() < 1e-3


@needs_liger
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma", "mistral, sliding window"])
def test_fused_kernels_give_the_models_numbers(name):
    groups = random_groups(3, SIZES)
    truth, slope = logps_and_gradients(small_on_card(name).eval(), FP32, Way.PADDED, groups)
    fused = small_on_card(name).eval()
    fuse_kernels(fused)
    found, gradient = logps_and_gradients(fused, FP32, Way.TRIMMED, groups)
    assert (found - truth).abs().max() < 1e-2
    assert (gradient - slope).norm() / slope.norm() < 1e-2
    on_cpu = small_model(name, max_position_embeddings=512).eval()
    plain, _ = logps_and_gradients(on_cpu, CPU, Way.TRIMMED, groups)
    assert (plain - truth.cpu()).abs().max() < 2e-3, "a model made later is not fused"


@pytest.fixture(scope="module")
def on_card():
    """The worlds' trainings run on the card in bf16 while this module's tests last."""
    before, worlds.COMPUTE = worlds.COMPUTE, BF16
    yield
    worlds.COMPUTE = before


@pytest.fixture(scope="module", params=[SCRATCH, ADAPTED], ids=["whole weights", "adapter"])
def world(request, tmp_path_factory, on_card):
    return World(tmp_path_factory.mktemp("world"), request.param)


def test_a_training_starts_at_ln_2_and_learns(world):
    out, outcome = world.train("learns", compute=BF16)
    assert outcome.facts["precision"] == "bf16"
    assert abs(outcome.facts["first_loss"] - math.log(2)) < 2e-2
    assert outcome.facts["final_loss"] < 0.6
    margins = []
    for folder in (world.checkpoint, out):
        model, tokenizer = load_policy(folder / "model")
        assert next(model.parameters()).is_cuda
        scores = score_pairs(
            model,
            Encoder(tokenizer, max_length=world.model.max_length),
            worlds.pairs_of(10, seed=5),
            compute=BF16,
            reporter=Notes(),
        )
        margins.append([row.chosen_logp - row.rejected_logp for row in scores.rows])
    assert sum(after > before for before, after in zip(*margins, strict=True)) >= 8


def test_a_training_that_was_stopped_goes_on_where_it_was(world):
    every_step = DPO.model_copy(update={"checkpoint_minutes": 1e-9})
    _, straight = world.train("straight", dpo=every_step, compute=BF16)
    work = world.root / "work stopped"
    with pytest.raises(KeyboardInterrupt):
        world.train("stopped", dpo=every_step, compute=BF16, reporter=Stop(3), work=work)
    notes = Notes()
    _, resumed = world.train("resumed", dpo=every_step, compute=BF16, reporter=notes, work=work)
    assert any("Resumed from step-000000002" in sentence for sentence in notes.sentences), notes.sentences
    assert resumed.facts["final_loss"] == pytest.approx(straight.facts["final_loss"], rel=5e-2)


def test_in_fp32_a_card_follows_a_cpu_step_by_step(world, tmp_path):
    if world.model is not SCRATCH:
        pytest.skip("once is enough")
    torch.backends.cuda.matmul.allow_tf32 = False
    losses = []
    for compute in (FP32, CPU):
        reference, notes = world.folder(f"reference {compute.device}"), Notes()
        compute_reference(
            world.pairs, world.checkpoint, reference, known=[], model=world.model, compute=compute, reporter=Notes()
        )
        world.train(f"on {compute.device}", compute=compute, reference=reference, reporter=notes)
        losses.append([values["loss"] for _, values in notes.numbers])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["adamw_8bit", "paged_adamw_8bit"])
def test_eight_bit_optimizers_learn_and_resume(world, kind):
    optimizer = DPO.optimizer.model_copy(update={"kind": kind})
    dpo = DPO.model_copy(update={"optimizer": optimizer, "checkpoint_minutes": 1e-9})
    _, outcome = world.train(f"straight {kind}", dpo=dpo, compute=BF16)
    assert outcome.facts["final_loss"] < 0.6
    work = world.root / f"work {kind}"
    with pytest.raises(KeyboardInterrupt):
        world.train(f"stopped {kind}", dpo=dpo, compute=BF16, reporter=Stop(3), work=work)
    _, resumed = world.train(f"resumed {kind}", dpo=dpo, compute=BF16, work=work)
    assert resumed.facts["final_loss"] == pytest.approx(outcome.facts["final_loss"], rel=0.1)


@needs_bitsandbytes
def test_a_base_in_four_bits_is_adapted_and_its_checkpoint_keeps_the_base_as_it_was(world):
    if world.model is not SCRATCH:
        pytest.skip("once is enough")
    model = ModelSettings(
        path=str(world.checkpoint / "model"),
        max_length=SCRATCH.max_length,
        adapter=AdapterSettings(rank=4, alpha=8, quantize_base=True),
    )
    quantized = World.__new__(World)
    quantized.root, quantized.model, quantized.pairs = world.root, model, world.pairs
    quantized.checkpoint, quantized.reference = world.checkpoint, world.folder("reference in 4 bits")
    compute_reference(
        world.pairs, world.checkpoint, quantized.reference, known=[], model=model, compute=BF16, reporter=Notes()
    )
    out, outcome = quantized.train("in 4 bits", compute=BF16)
    assert abs(outcome.facts["first_loss"] - math.log(2)) < 2e-2
    assert outcome.facts["final_loss"] < 0.65
    policy, _ = load_policy(out / "model")
    assert not getattr(policy.get_base_model(), "is_quantized", False)


def test_a_card_that_is_too_small_ends_with_what_to_change(world):
    if world.model is not SCRATCH:
        pytest.skip("once is enough")
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**21) / whole)
    try:
        with pytest.raises(CapacityError, match=r"compute\.batch_tokens"):
            world.train("starved", compute=BF16, dpo=DPO.model_copy(update={"batch_size": 64}))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

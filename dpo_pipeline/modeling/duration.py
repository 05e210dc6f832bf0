"""About how long a training takes: steps like its own, measured on this machine on random weights of the model's shape.

A model of one layer and one of three are made and thrown away; what two layers more cost is what each further layer
costs. Reckoning from FLOPs and a rate of matrix products was 2 to 2.7 times too short for small models: it leaves out
attention, norms, the optimizer and torch's own overhead.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from dpo_pipeline.modeling.base import weights_dtype
from dpo_pipeline.modeling.batches import Group, pack
from dpo_pipeline.modeling.device import Device, choose_device
from dpo_pipeline.modeling.forward import Scorer, Way
from dpo_pipeline.modeling.optimizer import make_optimizer
from dpo_pipeline.modeling.policy import make_trainable
from dpo_pipeline.modeling.settings import (
    AdapterSettings,
    Architecture,
    ComputeSettings,
    ModelSettings,
    OptimizerSettings,
)
from dpo_pipeline.modeling.shapes import architecture_of

SECONDS_OF_MEASURING = 1.5
LEAST_REPEATS = 3
MEASURED_LAYERS = (1, 3)


@dataclass(frozen=True, slots=True)
class StepShape:
    """An average optimizer step: how many examples, and the tokens of each one's prompt and responses."""

    examples: int
    prompt_tokens: int
    response_tokens: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the whole step."""
        return self.examples * (self.prompt_tokens + sum(self.response_tokens))

    def passes(self, batch_tokens: int) -> int:
        """Forward passes of at most `batch_tokens` that it takes."""
        return max(1, -(-self.tokens // batch_tokens))


def seconds_per_step(
    model: ModelSettings, compute: ComputeSettings, *, optimizer: OptimizerSettings, step: StepShape
) -> float:
    """Seconds one optimizer step takes in one process on the device the settings choose.

    A base in 4 bits is measured as if it were not.

    Raises:
        CapacityError: If the device is not on this machine, or the model's shape is not known.
    """
    device, shape = choose_device(compute), architecture_of(model)
    settings = model.model_copy(update={"adapter": _unquantized(model.adapter)})
    few, more = MEASURED_LAYERS
    if shape.layer_count <= more:
        return _measure(settings, compute, device, shape, optimizer=optimizer, step=step)
    small, large = (
        _measure(
            settings, compute, device, shape.model_copy(update={"layer_count": count}), optimizer=optimizer, step=step
        )
        for count in MEASURED_LAYERS
    )
    return small + (shape.layer_count - few) * max(0.0, large - small) / (more - few)


def _measure(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    shape: Architecture,
    *,
    optimizer: OptimizerSettings,
    step: StepShape,
) -> float:
    """Seconds of a step of a model of this shape: its forward passes, and one update."""
    passes = step.passes(device.batch_tokens)
    policy = make_trainable(_random_model(model, device, shape), device, settings=model, compute=compute)
    policy.train()
    adamw = make_optimizer(policy, optimizer.model_copy(update={"kind": "adamw"}))
    scorer = Scorer(policy, device, Way.TRIMMED)
    batch = pack(_groups(step, max(1, round(step.examples / passes)), shape.vocabulary_size), device.torch)

    def one_pass() -> None:
        (-scorer.logps(batch).sum() / batch.targets.numel()).backward()

    def update() -> None:
        torch.nn.utils.clip_grad_norm_([p for p in policy.parameters() if p.requires_grad], 1.0, foreach=True)
        adamw.step()

    with scorer.session():
        return passes * _median_seconds(one_pass, device) + _median_seconds(update, device)


def _random_model(model: ModelSettings, device: Device, shape: Architecture) -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=shape.vocabulary_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layer_count,
        num_attention_heads=shape.head_count,
        num_key_value_heads=shape.key_value_head_count,
        head_dim=shape.head_size,
        max_position_embeddings=max(2_048, model.max_length),
        tie_word_embeddings=shape.tied_embeddings,
    )
    with device.torch:
        return AutoModelForCausalLM.from_config(config, dtype=weights_dtype(model, device))


def _groups(step: StepShape, count: int, vocabulary: int) -> list[Group]:
    chance = np.random.default_rng(0)

    def tokens(size: int) -> np.ndarray:
        return chance.integers(3, vocabulary, max(1, size)).astype(np.int32)

    return [Group(tokens(step.prompt_tokens), tuple(map(tokens, step.response_tokens))) for _ in range(count)]


def _median_seconds(work: Callable[[], None], device: Device) -> float:
    wait = torch.cuda.synchronize if device.kind == "cuda" else lambda: None
    work()  # the first time allocates
    wait()
    seconds: list[float] = []
    while len(seconds) < LEAST_REPEATS or sum(seconds) < SECONDS_OF_MEASURING:
        started = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > 10 * SECONDS_OF_MEASURING:
            break
    return statistics.median(seconds)


def _unquantized(adapter: AdapterSettings | None) -> AdapterSettings | None:
    return None if adapter is None else adapter.model_copy(update={"quantize_base": False})

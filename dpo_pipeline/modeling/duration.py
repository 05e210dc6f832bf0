"""About how long a training takes: its own batches, measured on this machine on random weights of the model's shape.

A model of one layer and one of three are made and thrown away; what two layers more cost is what each further layer
costs. Reckoning from FLOPs and a rate of matrix products was 2 to 2.7 times too short for small models: it leaves out
attention, norms, the optimizer and torch's own overhead.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class Duration(NamedTuple):
    """What an optimizer step takes in one process: so much for each token that goes through, and one update."""

    seconds_a_token: float
    seconds_an_update: float

    def of_step(self, tokens: float) -> float:
        """Seconds of a step of so many tokens."""
        return tokens * self.seconds_a_token + self.seconds_an_update


def measure_steps(
    model: ModelSettings, compute: ComputeSettings, *, optimizer: OptimizerSettings, batches: Sequence[Sequence[Group]]
) -> Duration:
    """How long steps over such micro-batches take on the device the settings choose.

    A base in 4 bits is measured as if it were not.

    Args:
        model: Its shape, adapter and length.
        compute: The machine.
        optimizer: The optimizer of the stage.
        batches: Micro-batches as the stage cuts them; as many are measured as there is time for.

    Raises:
        CapacityError: If the device is not on this machine, or the model's shape is not known.
    """
    device, shape = choose_device(compute), _with_room_for(batches, architecture_of(model))
    settings = model.model_copy(update={"adapter": _unquantized(model.adapter)})
    few, more = MEASURED_LAYERS
    if shape.layer_count <= more:
        return _measure(settings, compute, device, shape, optimizer=optimizer, batches=batches)
    small, large = (
        _measure(
            settings,
            compute,
            device,
            shape.model_copy(update={"layer_count": count}),
            optimizer=optimizer,
            batches=batches,
        )
        for count in MEASURED_LAYERS
    )
    layers = (shape.layer_count - few) / (more - few)
    return Duration(*(one + layers * max(0.0, three - one) for one, three in zip(small, large, strict=True)))


def _measure(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    shape: Architecture,
    *,
    optimizer: OptimizerSettings,
    batches: Sequence[Sequence[Group]],
) -> Duration:
    """Steps of a model of this shape: forward and backward passes, and updates."""
    policy = make_trainable(_random_model(model, device, shape), device, settings=model, compute=compute)
    policy.train()
    adamw = make_optimizer(policy, optimizer.model_copy(update={"kind": "adamw"}))
    scorer = Scorer(policy, device, Way.TRIMMED)
    tokens = 0

    def one_pass(groups: Sequence[Group]) -> None:
        nonlocal tokens
        batch = pack(groups, device.torch)
        (-scorer.logps(batch).sum() / batch.targets.numel()).backward()
        tokens += batch.tokens

    def update() -> None:
        torch.nn.utils.clip_grad_norm_([p for p in policy.parameters() if p.requires_grad], 1.0, foreach=True)
        adamw.step()

    with scorer.session():
        one_pass(batches[0])  # the first time allocates
        update()
        tokens, turns = 0, itertools.cycle(batches)
        passes = sum(_seconds(lambda: one_pass(next(turns)), device, least=min(len(batches), LEAST_REPEATS)))
        return Duration(passes / tokens, statistics.mean(_seconds(update, device, least=LEAST_REPEATS)))


def _with_room_for(batches: Sequence[Sequence[Group]], shape: Architecture) -> Architecture:
    """The shape, with embeddings for every token of the batches: a chat template's marks may be new to the base."""
    lists = (tokens for batch in batches for group in batch for tokens in (group.prompt, *group.responses))
    largest = max((int(tokens.max()) for tokens in lists if len(tokens)), default=0)
    return shape.model_copy(update={"vocabulary_size": max(shape.vocabulary_size, largest + 1)})


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


def _seconds(work: Callable[[], None], device: Device, *, least: int) -> list[float]:
    """How long each time took, again and again until enough was measured."""
    wait = torch.cuda.synchronize if device.kind == "cuda" else lambda: None
    wait()
    seconds: list[float] = []
    while len(seconds) < least or sum(seconds) < SECONDS_OF_MEASURING:
        started = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - started)
        if sum(seconds) > 10 * SECONDS_OF_MEASURING:
            break
    return seconds


def _unquantized(adapter: AdapterSettings | None) -> AdapterSettings | None:
    return None if adapter is None else adapter.model_copy(update={"quantize_base": False})

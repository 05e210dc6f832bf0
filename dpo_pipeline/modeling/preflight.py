"""What a training needs, in bytes, before anything is loaded, and whether the machine has it.

The sums are stated term by term so that a person can check them. Weights, gradients and optimizer are exact;
activations are what a Llama layer was measured to keep for its backward pass.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.base import where_is
from dpo_pipeline.modeling.device import Device, choose_device, free_memory_bytes, require_bitsandbytes
from dpo_pipeline.modeling.head import TILE_ELEMENTS
from dpo_pipeline.modeling.settings import Architecture, ComputeSettings, ModelSettings, Precision

GIB = 2**30
FP32, BF16, NF4 = 4.0, 2.0, 0.56  # bytes a weight; nf4 with its double-quantised scales
ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 0.0}
CONTEXT_BYTES = {"cuda": 1.0 * GIB, "mps": 1.0 * GIB, "cpu": 0.5 * GIB}
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the sum: what, how many bytes, and how they come about."""

    name: str
    size: float
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a training needs and what the machine has.

    Attributes:
        parameters: All weights of the model.
        trained: Those that are trained.
        memory: The terms of the sum, in bytes of device memory.
        disk_bytes: Checkpoints while training, and the published weights.
        device: Where it would run, in words.
        memory_free: Free bytes of device memory; None where there is no such device.
        disk_free: Free bytes of disk.
        notes: What else a person should know, such as a base that is not on this machine yet.
    """

    parameters: int
    trained: int
    memory: tuple[Term, ...]
    disk_bytes: float
    device: str
    memory_free: float | None
    disk_free: float
    notes: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> float:
        """The sum of the terms."""
        return sum(term.size for term in self.memory)

    @property
    def fits(self) -> bool:
        """Whether the machine has the device, its memory and the disk."""
        has_memory = self.memory_free is not None and self.memory_bytes <= self.memory_free
        return has_memory and self.disk_bytes <= self.disk_free

    def as_text(self) -> str:
        """The sum as a person would write it down, and the verdict."""
        rows = [f"{self.parameters:,} parameters, {self.trained:,} of them trained"]
        rows += [f"  {term.name:12} {_gib(term.size):>10}   {term.why}" for term in self.memory]
        rows.append(f"  {'memory':12} {_gib(self.memory_bytes):>10}   {self._memory_verdict()}")
        enough = "enough" if self.disk_bytes <= self.disk_free else "NOT ENOUGH"
        rows.append(f"  {'disk':12} {_gib(self.disk_bytes):>10}   {_gib(self.disk_free)} free: {enough}")
        rows += [f"  note: {note}" for note in self.notes]
        return "\n".join([*rows, "This machine has what it takes." if self.fits else "This machine does not have it."])

    def _memory_verdict(self) -> str:
        if self.memory_free is None:
            return self.device
        enough = "enough" if self.memory_bytes <= self.memory_free else "NOT ENOUGH"
        return f"{_gib(self.memory_free)} free on {self.device}: {enough}"


def plan_training(
    model: ModelSettings, compute: ComputeSettings, *, optimizer: str = "adamw", folder: Path | None = None
) -> Plan:
    """What training under these settings needs on this machine; loads no weights.

    Args:
        model: The base model and adapter.
        compute: The machine.
        optimizer: As in OptimizerSettings.kind.
        folder: Where checkpoints would go; the current directory unless given.

    Raises:
        CapacityError: If the model's shape is not known here.
    """
    try:
        device = choose_device(compute)
    except CapacityError as error:
        precision = Precision.BF16 if compute.precision is Precision.AUTO else compute.precision
        wanted = Device(compute.device, str(error.found), precision, 0, compute.batch_tokens)
        return _plan(model, compute, wanted, optimizer=optimizer, memory_free=None, folder=folder)
    return _plan(model, compute, device, optimizer=optimizer, memory_free=free_memory_bytes(device), folder=folder)


def require_fit(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    *,
    optimizer: str,
    reporter: Reporter,
    folder: Path | None = None,
) -> None:
    """Say the sum in one line, and stop before anything is loaded if it or a package it counts on is missing.

    A base whose shape is not known yet (a hub id not downloaded, no `architecture` in the profile) is let through.

    Raises:
        CapacityError: With the whole sum, or naming the setting that needs bitsandbytes and CUDA.
    """
    if model.adapter is not None and model.adapter.quantize_base:
        require_bitsandbytes("model.adapter.quantize_base")
    if optimizer != "adamw":
        require_bitsandbytes(f"optimizer.kind {optimizer}")
    try:
        free = free_memory_bytes(device)
        plan = _plan(model, compute, device, optimizer=optimizer, memory_free=free, folder=folder)
    except CapacityError as error:
        reporter.say(f"Not checked whether it fits: {error.found}.")
        return
    need, there = _gib(plan.memory_bytes), _gib(free)
    if not plan.fits:
        raise CapacityError(
            f"the training does not fit this machine:\n{plan.as_text()}\n",
            expected=f"at most {there} of memory and {_gib(plan.disk_free)} of disk",
            do="Lower compute.batch_tokens, switch on compute.gradient_checkpointing, or train an adapter "
            "(model.adapter), with quantize_base if need be",
        )
    terms = ", ".join(f"{term.name} {_gib(term.size)}" for term in plan.memory)
    reporter.say(f"Needs about {need} of {there} free: {terms}.")


def architecture_of(model: ModelSettings) -> Architecture:
    """The shape of the base model, from the settings or from its config.json on this machine.

    Raises:
        CapacityError: If neither has it.
    """
    if model.scratch is not None:
        made = model.scratch
        return Architecture(
            layer_count=made.layer_count,
            hidden_size=made.hidden_size,
            intermediate_size=made.intermediate_size,
            head_count=made.head_count,
            key_value_head_count=made.head_count,
            head_size=made.hidden_size // made.head_count,
            vocabulary_size=made.vocabulary_size,
            tied_embeddings=True,
        )
    config = _config_path(model)
    if config is not None:
        return _from_config(json.loads(config.read_text(encoding="utf-8")))
    if model.architecture is not None:
        return model.architecture
    raise CapacityError(
        f"the shape of {model.hub or model.path} is not known on this machine",
        expected="its config.json in the folder or the hub's cache, or `model.architecture` in the profile",
        do="Download the model, or state its architecture",
    )


def parameter_count(shape: Architecture) -> int:
    """All weights of a Llama-architecture model of this shape (no biases; two norms a layer and a last one)."""
    embeddings = shape.vocabulary_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    linear = sum(rows * columns for rows, columns in _linear_layers(shape))
    return embeddings + shape.layer_count * (linear + 2 * shape.hidden_size) + shape.hidden_size


def adapter_parameter_count(shape: Architecture, *, rank: int) -> int:
    """Weights of a rank-r adapter on every linear layer: r (in + out) each (arXiv 2106.09685, section 4.1)."""
    return shape.layer_count * sum(rank * (rows + columns) for rows, columns in _linear_layers(shape))


def _plan(
    model: ModelSettings,
    compute: ComputeSettings,
    device: Device,
    *,
    optimizer: str,
    memory_free: float | None,
    folder: Path | None,
) -> Plan:
    shape = architecture_of(model)
    parameters = parameter_count(shape)
    trained = parameters if model.adapter is None else adapter_parameter_count(shape, rank=model.adapter.rank)
    published = trained * FP32
    return Plan(
        parameters=parameters if model.adapter is None else parameters + trained,
        trained=trained,
        memory=tuple(_terms(model, compute, device, shape, optimizer=optimizer)),
        disk_bytes=KEPT_CHECKPOINTS * trained * (FP32 + max(ADAM_BYTES[optimizer], 2.0)) + published,
        device=f"{device.name} ({device.kind}, {device.precision})" if memory_free is not None else device.name,
        memory_free=memory_free,
        disk_free=float(shutil.disk_usage(_existing(folder or Path.cwd())).free),
        notes=tuple(_notes(model, parameters)),
    )


def _terms(
    model: ModelSettings, compute: ComputeSettings, device: Device, shape: Architecture, *, optimizer: str
) -> Iterator[Term]:
    parameters, adapter = parameter_count(shape), model.adapter
    compute_bytes = BF16 if device.precision is Precision.BF16 else FP32
    if adapter is None:
        trained = parameters
        yield Term("weights", parameters * FP32, f"{parameters:,} x 4 bytes (fp32, since they are trained)")
    else:
        trained = adapter_parameter_count(shape, rank=adapter.rank)
        width = NF4 if adapter.quantize_base else compute_bytes
        label = "4-bit" if adapter.quantize_base else str(device.precision)
        yield Term("weights", parameters * width, f"{parameters:,} x {width:g} bytes ({label}, frozen)")
        yield Term("adapter", trained * FP32, f"rank {adapter.rank} on all linear layers, fp32")
    yield Term("gradients", trained * FP32, f"{trained:,} x 4 bytes")
    yield Term(
        "optimizer", trained * ADAM_BYTES[optimizer], f"{trained:,} x {ADAM_BYTES[optimizer]:g} bytes ({optimizer})"
    )
    if adapter is None and device.precision is Precision.BF16:
        yield Term("copies", parameters * BF16, "of the weights in bf16, for the products")
    # A pair is never torn apart: the longest one takes twice max_length, whatever the budget.
    tokens, layer = max(device.batch_tokens, 2 * model.max_length), _layer_bytes(shape, compute_bytes=compute_bytes)
    if compute.gradient_checkpointing:
        kept = tokens * (shape.layer_count * shape.hidden_size * FP32 + layer)
        yield Term(
            "activations", kept, f"{tokens:,} tokens; the inputs of {shape.layer_count} layers, and one layer whole"
        )
    else:
        yield Term("activations", tokens * layer * shape.layer_count, f"{tokens:,} tokens x {shape.layer_count} layers")
    yield Term("logits", 2 * TILE_ELEMENTS * FP32, "one tile and its gradient")
    yield Term("runtime", CONTEXT_BYTES[device.kind], "torch itself")


def _linear_layers(shape: Architecture) -> list[tuple[int, int]]:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    queries = shape.head_count * shape.head_size
    keys = shape.key_value_head_count * shape.head_size
    return [
        (hidden, queries),
        (hidden, keys),
        (hidden, keys),
        (queries, hidden),
        *[(hidden, inner)] * 2,
        (inner, hidden),
    ]


def _layer_bytes(shape: Architecture, *, compute_bytes: float) -> float:
    """Bytes a layer keeps per token: residual stream and norms in fp32; q, k, v, attention and MLP as computed.

    Counted on Llama layers of seven shapes with `saved_tensors_hooks`: 24 h + 26 q + 16 f in fp32 for width h, query
    width q and MLP width f (keys and values are spread to the query heads); a tenth more in the norms under bf16.
    """
    queries = shape.head_count * shape.head_size
    residual = 24 * shape.hidden_size * (1.25 if compute_bytes == BF16 else 1)
    return residual + compute_bytes * (6.5 * queries + 4.2 * shape.intermediate_size)


def _notes(model: ModelSettings, parameters: int) -> Iterator[str]:
    if model.hub is not None and _config_path(model) is None:
        size = _gib(parameters * BF16)
        yield f"{model.hub} is not in this machine's cache; about {size} are downloaded at the first training"


def _config_path(model: ModelSettings) -> Path | None:
    name, revision = where_is(model)
    if model.path is not None:
        found: Any = Path(name) / "config.json"
    else:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found) if isinstance(found, str | Path) and Path(found).is_file() else None


def _from_config(config: dict[str, Any]) -> Architecture:
    heads = config["num_attention_heads"]
    return Architecture(
        layer_count=config["num_hidden_layers"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        head_count=heads,
        key_value_head_count=config.get("num_key_value_heads") or heads,
        head_size=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary_size=config["vocab_size"],
        tied_embeddings=config.get("tie_word_embeddings", False),
    )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"

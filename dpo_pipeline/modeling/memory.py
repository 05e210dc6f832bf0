"""What a training takes of the device's memory, term by term, so that a person can check the sum.

Weights, gradients and optimizer are exact; activations are what a Llama layer was measured to keep for its backward
pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dpo_pipeline.modeling import products
from dpo_pipeline.modeling.device import Device
from dpo_pipeline.modeling.head import bytes_of_a_logit, rows_of_a_tile
from dpo_pipeline.modeling.settings import Architecture, ComputeSettings, ModelSettings, Precision
from dpo_pipeline.modeling.shapes import adapter_parameter_count, parameter_count

GIB = 2**30
FP32, BF16, NF4 = 4.0, 2.0, 0.56  # bytes a weight; nf4 with its double-quantised scales
ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.0, "paged_adamw_8bit": 0.0}
# On a CPU: libraries 0.44, code loaded later, tokenizer, tables in hand and what malloc keeps 0.16 (measured twice,
# docs/log.md); on cards the context alone, a guess.
CONTEXT_BYTES = {"cuda": 1.0 * GIB, "mps": 1.0 * GIB, "cpu": 0.6 * GIB}
# Compiled products and their scratch, where oneDNN does them: 150 MiB were measured with 151 kernels.
KERNEL_BYTES = 0.15 * GIB


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the sum: what, how many bytes, and how they come about."""

    name: str
    size: float
    why: str


def memory_terms(
    model: ModelSettings, compute: ComputeSettings, device: Device, shape: Architecture, *, optimizer: str
) -> Iterator[Term]:
    """The terms of the sum for one process on the device."""
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
    tokens, layer = max(device.batch_tokens, 2 * model.max_length), layer_bytes(shape, compute_bytes=compute_bytes)
    if compute.gradient_checkpointing:
        kept = tokens * (shape.layer_count * shape.hidden_size * FP32 + layer)
        yield Term(
            "activations", kept, f"{tokens:,} tokens; the inputs of {shape.layer_count} layers, and one layer whole"
        )
    else:
        yield Term("activations", tokens * layer * shape.layer_count, f"{tokens:,} tokens x {shape.layer_count} layers")
    rows = rows_of_a_tile(shape.vocabulary_size, device.kind)
    logit = bytes_of_a_logit(device.kind, compute_bytes)
    yield Term(
        "logits",
        rows * shape.vocabulary_size * logit,
        f"a tile of {rows:,} tokens, {logit:g} bytes a logit at the peak",
    )
    kernels = KERNEL_BYTES if device.kind == "cpu" and products.is_faster() else 0.0
    yield Term(
        "runtime", CONTEXT_BYTES[device.kind] + kernels, "torch itself, and on a CPU tables, kernels and the allocator"
    )


def layer_bytes(shape: Architecture, *, compute_bytes: float) -> float:
    """Bytes a layer keeps per token: residual stream and norms in fp32; q, k, v, attention and MLP as computed.

    Counted on Llama layers of seven shapes with `saved_tensors_hooks`: 24 h + 26 q + 16 f in fp32 for width h, query
    width q and MLP width f (keys and values are spread to the query heads); a tenth more in the norms under bf16.
    """
    queries = shape.head_count * shape.head_size
    residual = 24 * shape.hidden_size * (1.25 if compute_bytes == BF16 else 1)
    return residual + compute_bytes * (6.5 * queries + 4.2 * shape.intermediate_size)

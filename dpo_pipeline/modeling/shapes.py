"""The shape of a base model before anything is loaded: layers, widths, weights."""

import json
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import CapacityError
from dpo_pipeline.modeling.base import where_is
from dpo_pipeline.modeling.settings import Architecture, ModelSettings


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
    config = config_path(model)
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
    linear = sum(rows * columns for rows, columns in linear_layers(shape))
    return embeddings + shape.layer_count * (linear + 2 * shape.hidden_size) + shape.hidden_size


def adapter_parameter_count(shape: Architecture, *, rank: int) -> int:
    """Weights of a rank-r adapter on every linear layer: r (in + out) each (arXiv 2106.09685, section 4.1)."""
    return shape.layer_count * sum(rank * (rows + columns) for rows, columns in linear_layers(shape))


def linear_layers(shape: Architecture) -> list[tuple[int, int]]:
    """Rows and columns of a layer's matrices: queries, keys, values, output, gate, up, down."""
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


def config_path(model: ModelSettings) -> Path | None:
    """The base model's config.json, if it is on this machine."""
    path = base_file(model, "config.json")
    return path if path.is_file() else None


def base_file(model: ModelSettings, name: str) -> Path:
    """Where a file of the base model would be on this machine: in its folder, or in the hub's cache."""
    where, revision = where_is(model)
    if model.path is not None:
        return Path(where) / name
    from huggingface_hub import try_to_load_from_cache

    return Path(str(try_to_load_from_cache(where, name, revision=revision)))


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

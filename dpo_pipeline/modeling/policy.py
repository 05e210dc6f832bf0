"""Policies on disk and in memory: whole weights or an adapter on a pinned base, always safetensors."""

from pathlib import Path
from typing import Any

from dpo_pipeline.modeling.settings import Precision


def load_policy(folder: Path, *, device: str = "auto", precision: Precision = Precision.AUTO) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint folder (`<artifact>/model`), ready to score and to generate.

    Args:
        folder: HF layout: config.json, *.safetensors, tokenizer files; or an adapter with its base.
        device: auto, cuda, mps or cpu.
        precision: auto: bf16 where the device has it, else fp32.
    """
    raise NotImplementedError

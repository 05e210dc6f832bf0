"""Settings of the model and of the machine it runs on; free of torch, so that loading a profile is quick."""

import re
from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from dpo_pipeline.core.settings import Settings

PINNED = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


class Precision(StrEnum):
    """Number format of weights and activations; log-softmax and losses are always fp32."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


class ScratchModel(Settings):
    """A Llama-architecture model made from random numbers, with a byte-level BPE trained on the demonstrations."""

    vocabulary_size: int = Field(default=1_536, ge=300, le=200_000)
    """Tokens in the vocabulary, specials included."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""

    intermediate_size: int = Field(default=352, ge=8)
    """Width of the feed-forward layers."""

    layer_count: int = Field(default=2, ge=1)
    """Transformer layers."""

    head_count: int = Field(default=4, ge=1)
    """Attention heads; must divide hidden_size."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.hidden_size % self.head_count:
            message = f"hidden_size {self.hidden_size} is not a multiple of head_count {self.head_count}"
            raise ValueError(message)
        return self


class AdapterSettings(Settings):
    """Low-rank adaptation (LoRA, arXiv 2106.09685) through peft; absent means full fine-tuning."""

    rank: int = Field(default=16, ge=1)
    """Rank r of the update."""

    alpha: int = Field(default=16, ge=1)
    """Scale: the update is multiplied by alpha / rank (alpha / sqrt(rank) for rsLoRA)."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of adapter inputs dropped in training."""

    variant: Literal["lora", "rslora", "dora"] = "lora"
    """Kind of adapter."""

    target_modules: str = "all-linear"
    """Modules adapted: `all-linear`, or a regular expression over module names."""

    quantize_base: bool = False
    """QLoRA: load the frozen base in 4-bit (needs bitsandbytes and CUDA)."""


class Architecture(Settings):
    """The numbers of a model's shape, for planning where its config.json is not on this machine."""

    layer_count: int = Field(ge=1)
    """Transformer layers."""

    hidden_size: int = Field(ge=1)
    """Width of the residual stream."""

    intermediate_size: int = Field(ge=1)
    """Width of the feed-forward layers."""

    head_count: int = Field(ge=1)
    """Attention heads."""

    key_value_head_count: int = Field(ge=1)
    """Key and value heads; equal to head_count without grouped queries."""

    head_size: int = Field(ge=1)
    """Width of one head."""

    vocabulary_size: int = Field(ge=1)
    """Tokens in the vocabulary."""

    tied_embeddings: bool = False
    """Whether input and output embeddings are one matrix."""


class OptimizerSettings(Settings):
    """AdamW and its schedule, shared by both training stages."""

    learning_rate: float = Field(gt=0, lt=1)
    """Peak learning rate."""

    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay after warm-up; cosine and linear end at zero."""

    warmup_share: float = Field(default=0.1, ge=0, le=1)
    """Share of all steps spent rising to the peak."""

    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay on matrices; never on biases and norms."""

    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""

    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Publish the exponential moving average of the weights, with this decay a step: 0.99 averages about the last 100;
    0 publishes the last weights. Takes 4 bytes a trained weight more."""

    kind: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """adamw: fused where the device has it; the 8-bit kinds need bitsandbytes and CUDA."""


class ModelSettings(Settings):
    """Where the base model comes from and how text becomes tokens. Exactly one of scratch, path and hub is set."""

    scratch: ScratchModel | None = None
    """Make a small model from random numbers; for the demo and for tests."""

    path: str | None = None
    """Folder of a downloaded model in Hugging Face layout (safetensors only)."""

    hub: str | None = None
    """Hub id pinned to a revision: `owner/name@revision`."""

    architecture: Architecture | None = None
    """The base model's shape, so that `plan` can do its sums before anything is downloaded."""

    adapter: AdapterSettings | None = None
    """Train an adapter instead of all weights."""

    max_length: int = Field(default=1_024, ge=16)
    """Longest prompt + response trained on, in tokens; prompts are cut from the left, responses never silently."""

    chat_template: Literal["model", "chatml"] = "model"
    """`model`: the tokenizer's own template; `chatml`: <|im_start|>role ... <|im_end|>."""

    seed: int = 17
    """Seed of everything that uses chance in training."""

    @model_validator(mode="after")
    def _one_base(self) -> Self:
        given = [name for name in ("scratch", "path", "hub") if getattr(self, name) is not None]
        if len(given) != 1:
            message = f"set exactly one of scratch, path and hub; found {given or 'none'}"
            raise ValueError(message)
        if self.hub is not None and not PINNED.fullmatch(self.hub):
            message = f"hub {self.hub!r} names no revision; a branch can change, so give owner/name@<40 hex digits>"
            raise ValueError(message)
        return self


class ComputeSettings(Settings):
    """The machine: which device, which precision, how much at once."""

    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where training runs; auto prefers cuda, then mps, then cpu."""

    precision: Precision = Precision.AUTO
    """auto: bf16 where the device has it, else fp32."""

    batch_tokens: int = Field(default=8_192, ge=64)
    """Most tokens in one forward pass; the main lever on activation memory."""

    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: about 30 % slower, a fraction of the memory."""

    fused_kernels: bool = False
    """Use Liger's fused norms, rotary embedding and feed-forward product: faster, and fewer activations are kept (needs
    `dpo-pipeline[kernels]` and CUDA; an architecture that Liger does not know stays as it is)."""

    threads: int = Field(default=0, ge=0)
    """CPU threads of each process; 0 shares out what the machine offers."""

    processes: int = Field(default=1, ge=1)
    """Processes of this machine that share each step's examples, one to a CUDA card; each holds the whole model. The
    weights are those of one process to rounding."""

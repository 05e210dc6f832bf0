"""The model a training starts from: made from random numbers, a folder, or the hub pinned to a revision."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar

from dpo_pipeline.core.errors import ArtifactError, InputError
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.device import Device, require_bitsandbytes
from dpo_pipeline.modeling.settings import ModelSettings, Precision, ScratchModel
from dpo_pipeline.modeling.template import CHATML, CHATML_TOKENS

# Bars of carriage returns make logs unreadable; `reporter` says what is going on.
disable_progress_bar()

PAD, END = "<|pad|>", CHATML_TOKENS[1]
LONGEST_CONTEXT = 2_048


def open_base(settings: ModelSettings, *, corpus: Iterable[str], device: Device) -> tuple[Any, Any]:
    """Model and tokenizer the settings name, on the CPU, dropout off.

    Args:
        settings: Exactly one of scratch, path and hub.
        corpus: Texts a scratch tokenizer is trained on; read once, and only then.
        device: Its precision is that of a base that stays frozen; weights to be trained are fp32.

    Raises:
        ArtifactError: If the folder holds no safetensors, or code of its own.
    """
    if settings.scratch is not None:
        tokenizer = train_tokenizer(corpus, vocabulary_size=settings.scratch.vocabulary_size)
        return _scratch_model(settings.scratch, tokenizer, settings), tokenizer
    name, revision = where_is(settings)
    refuse_foreign_code(name)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    quantize = settings.adapter is not None and settings.adapter.quantize_base
    model = load_weights(name, dtype=weights_dtype(settings, device), revision=revision, quantize=quantize)
    _settle_template(model, tokenizer, settings)
    return model, tokenizer


def reopen_base(settings: ModelSettings, tokenizer: Any, *, device: Device) -> Any:
    """The model as a training of these settings met it before its first step, on the CPU, dropout off.

    Args:
        settings: Those of the training.
        tokenizer: The one the training kept; weights from random numbers are made again for it, from the seed.
        device: Gives the precision of a base that stays frozen.

    Raises:
        ArtifactError: If the folder holds no safetensors, or code of its own.
    """
    if settings.scratch is not None:
        return _scratch_model(settings.scratch, tokenizer, settings)
    return open_base(settings, corpus=(), device=device)[0]


def weights_dtype(settings: ModelSettings, device: Device) -> torch.dtype:
    """The weights' number format: fp32 where they are trained (updates of 5e-7 vanish in bf16), else the device's."""
    frozen_in_bf16 = settings.adapter is not None and device.precision is Precision.BF16
    return torch.bfloat16 if frozen_in_bf16 else torch.float32


def where_is(settings: ModelSettings) -> tuple[str, str | None]:
    """The folder, or the hub's name and revision."""
    if settings.path is not None:
        return settings.path, None
    assert settings.hub is not None
    name, _, revision = settings.hub.partition("@")
    return name, revision


def load_weights(name: str, *, dtype: torch.dtype, revision: str | None = None, quantize: bool = False) -> Any:
    """A causal language model from safetensors, dropout off; nothing is unpickled and no foreign code is run.

    Raises:
        CapacityError: If a 4-bit base is asked for where bitsandbytes cannot serve it.
    """
    extra: dict[str, Any] = {}
    if quantize:
        require_bitsandbytes("model.adapter.quantize_base")
        from transformers import BitsAndBytesConfig

        extra["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    # Caps on attention scores exist in plain code only; sdpa refuses them.
    is_capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    model = AutoModelForCausalLM.from_pretrained(
        name,
        config=config,
        revision=revision,
        dtype=dtype,
        use_safetensors=True,
        trust_remote_code=False,
        attn_implementation="eager" if is_capped else "sdpa",
        **extra,
    )
    return without_dropout(model)


def without_dropout(model: Any) -> Any:
    """The model with every dropout layer and attention dropout at zero: preference losses compare exact log-probs."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return model


def refuse_foreign_code(name: str) -> None:
    """Refuse a local folder whose configuration asks for code of its own or whose weights are not safetensors.

    Raises:
        ArtifactError: Saying which of the two it is.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    config = folder / "config.json"
    if config.exists() and "auto_map" in json.loads(config.read_text(encoding="utf-8")):
        raise ArtifactError(
            f"{config} names Python code to be run on loading (auto_map)",
            expected="an architecture that transformers has itself",
            do="Convert the model to a built-in architecture; trust_remote_code is never used here",
        )
    if not any(folder.glob("*.safetensors")):
        raise ArtifactError(
            f"{folder} holds no *.safetensors file",
            expected="weights as safetensors; pickled weights are never loaded",
            do="Convert them with safetensors' converter, or download the safetensors revision",
        )


def train_tokenizer(corpus: Iterable[str], *, vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with ChatML turns; the same texts in any order of equal counts give the same vocabulary.

    Raises:
        InputError: If there is no text to learn from.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, *CHATML_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = _Counted(corpus)
    backend.train_from_iterator(seen, trainer)
    if not seen.count:
        raise InputError(
            "there is no text to train the tokenizer on",
            expected="at least one demonstration that may be learned from",
            do="Add demonstrations to a drop, or start from a model that has a tokenizer (model.path, model.hub)",
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, eos_token=END, additional_special_tokens=[CHATML_TOKENS[0]]
    )
    tokenizer.chat_template = CHATML
    return tokenizer


class _Counted:
    def __init__(self, texts: Iterable[str]) -> None:
        self._texts, self.count = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            self.count += 1
            yield text


def _scratch_model(scratch: ScratchModel, tokenizer: Any, settings: ModelSettings) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=scratch.hidden_size,
        intermediate_size=scratch.intermediate_size,
        num_hidden_layers=scratch.layer_count,
        num_attention_heads=scratch.head_count,
        num_key_value_heads=scratch.head_count,
        max_position_embeddings=max(LONGEST_CONTEXT, settings.max_length),
        tie_word_embeddings=True,
        # Not transformers' 0.02: at width 128 and 0.0625 a model learns to copy names and numbers within 700 steps, at
        # 0.02 not in 1,800.
        initializer_range=(2 * scratch.hidden_size) ** -0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  taken by the base class
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(settings.seed, "scratch weights"))
        return LlamaForCausalLM(config)


def _settle_template(model: Any, tokenizer: Any, settings: ModelSettings) -> None:
    """Give the tokenizer a template and padding it may lack, and the model room for new tokens."""
    settle_tokenizer(tokenizer, settings)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def settle_tokenizer(tokenizer: Any, settings: ModelSettings) -> None:
    """Give the tokenizer a template and padding it may lack; new tokens only where their embeddings can be learned.

    Raises:
        InputError: If it has no template, or an adapter would have to learn new tokens.
    """
    if settings.chat_template == "chatml":
        tokenizer.chat_template = CHATML
        missing = [token for token in CHATML_TOKENS if token not in tokenizer.get_vocab()]
        if missing and settings.adapter is not None:
            raise InputError(
                f"the base model has no tokens {', '.join(missing)} and an adapter cannot learn new ones",
                do="Set model.chat_template to model, or train all weights",
            )
        if missing:
            tokenizer.add_special_tokens({"additional_special_tokens": missing})
        tokenizer.eos_token = END
    if not tokenizer.chat_template:
        raise InputError(
            "the base model's tokenizer has no chat template",
            do="Set model.chat_template to chatml, or use an instruction-tuned base",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

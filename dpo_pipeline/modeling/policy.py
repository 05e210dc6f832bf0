"""Policies on disk and in memory: whole weights, or an adapter beside or on top of its base; always safetensors.

A checkpoint folder has Hugging Face's layout. With an adapter it holds `adapter_config.json` and the adapter; the base
is either the pinned one its configuration names, or a copy in `base/` where there is no other place to find it.
"""

import hashlib
import importlib
import json
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import AutoTokenizer

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.modeling.base import load_weights, refuse_foreign_code, weights_dtype, where_is
from dpo_pipeline.modeling.device import Device, capacity_in_words, choose_device, require_liger
from dpo_pipeline.modeling.forward import causal_model
from dpo_pipeline.modeling.settings import AdapterSettings, ComputeSettings, ModelSettings, Precision

ADAPTER_CONFIG = "adapter_config.json"
BASE = "base"


def load_policy(folder: Path, *, device: str = "auto", precision: Precision | str = Precision.AUTO) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint folder (`<artifact>/model`), ready to score and to generate.

    Args:
        folder: HF layout: config.json, *.safetensors, tokenizer files; or an adapter with its base.
        device: auto, cuda, mps or cpu.
        precision: auto: bf16 where the device has it, else fp32.

    Raises:
        ArtifactError: If the weights are not safetensors or ask for foreign code.
        CapacityError: If the device is not on this machine.
    """
    chosen = choose_device(ComputeSettings.model_validate({"device": device, "precision": precision}))
    dtype = torch.bfloat16 if chosen.precision is Precision.BF16 else torch.float32
    model, tokenizer = open_policy(folder, dtype=dtype)
    return model.to(chosen.torch).eval(), tokenizer


def open_for_training(
    folder: Path, device: Device, *, settings: ModelSettings, compute: ComputeSettings
) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint, as training and the reference pass need them: the same numbers in both.

    An adapter in the folder is continued; whole weights get a fresh one where the settings ask for it.
    """
    quantize = settings.adapter is not None and settings.adapter.quantize_base
    model, tokenizer = open_policy(folder, dtype=weights_dtype(settings, device), trainable=True, quantize=quantize)
    return make_trainable(model, device, settings=settings, compute=compute), tokenizer


def make_trainable(model: Any, device: Device, *, settings: ModelSettings, compute: ComputeSettings) -> Any:
    """The model on its device, with the adapter the settings ask for and gradient checkpointing if they do."""
    with capacity_in_words("loading the model"):
        if compute.fused_kernels:
            fuse_kernels(causal_model(model))
        if settings.adapter is not None and not isinstance(model, PeftModel):
            model = attach_adapter(model, settings.adapter, seed=seed_for(settings.seed, "adapter"))
        if compute.gradient_checkpointing:
            checkpoint_activations(model)
        is_quantized = getattr(model, "is_quantized", False)
        return model if is_quantized else model.to(device.torch)


def fuse_kernels(causal: Any) -> None:
    """Replace norms, rotary embedding and feed-forward product by Liger's kernels (Hsu et al. 2024, arXiv:2410.10989).

    Its heads stay out: ours forms logits for response tokens only.

    Raises:
        CapacityError: If Liger is not installed or there is no CUDA card.
    """
    require_liger("compute.fused_kernels")
    patches = importlib.import_module("liger_kernel.transformers.monkey_patch")
    module: Any = sys.modules[type(causal).__module__]
    before = dict(vars(module))
    patches._apply_liger_kernel_to_instance(  # noqa: SLF001  what transformers' own Trainer calls
        model=causal, fused_linear_cross_entropy=False, cross_entropy=False
    )
    # The instance is done; classes are put back, so that the next model of this process is made as ever.
    for name, original in before.items():
        fused = getattr(module, name)
        if fused is not original:
            setattr(module, name, _on_cards(fused, original) if name == "apply_rotary_pos_emb" else original)


def _on_cards(fused: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """The rotary embedding is a function of the whole module, which models on a CPU call as well."""

    def rotate(query: torch.Tensor, *rest: Any, **options: Any) -> Any:
        return (fused if query.is_cuda else original)(query, *rest, **options)

    return rotate


def checkpoint_activations(model: Any) -> None:
    """Have the model recompute its layers' activations in the backward pass; only while it is in training mode."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def parameter_counts(model: Any) -> dict[str, int]:
    """All parameters, and those that are trained."""
    parameters = list(model.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return {"parameters": sum(map(torch.numel, parameters)), "trained_parameters": sum(map(torch.numel, trained))}


def open_policy(
    folder: Path, *, dtype: torch.dtype, trainable: bool = False, quantize: bool = False
) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint folder, on the CPU, dropout off.

    Raises:
        ArtifactError: If the weights are not safetensors, ask for foreign code, or are not those of the tokenizer.
    """
    has_adapter = (folder / ADAPTER_CONFIG).exists()
    name, revision = _base_of(folder) if has_adapter else (str(folder), None)
    refuse_foreign_code(name)
    if has_adapter:
        _refuse_pickled_adapter(folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    model = load_weights(name, dtype=dtype, revision=revision, quantize=quantize)
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ArtifactError(
            f"the tokenizer in {folder} has {len(tokenizer)} tokens, the model {rows} embeddings",
            expected="a tokenizer and weights saved together",
            do="Restore the checkpoint; its files come from two different models",
        )
    if not has_adapter:
        return model, tokenizer
    with _peft_at_work():
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    return _adapter_in_fp32(adapted), tokenizer


def attach_adapter(model: Any, settings: AdapterSettings, *, seed: int) -> PeftModel:
    """The model with a fresh low-rank adapter, everything else frozen; at first it changes nothing."""
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=settings.target_modules,
        use_rslora=settings.variant == "rslora",
        use_dora=settings.variant == "dora",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with _peft_at_work():
            adapted = get_peft_model(model, config)
    return _adapter_in_fp32(adapted)


def save_policy(model: Any, tokenizer: Any, folder: Path, *, settings: ModelSettings) -> None:
    """Write a checkpoint folder: the same weights and settings give the same bytes."""
    if isinstance(model, PeftModel):
        _save_adapter(model, folder, settings)
    else:
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def policy_digest(folder: Path) -> str:
    """The SHA-256 over the names and contents of a checkpoint's files: the identity of a model and its tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def _peft_at_work() -> Iterator[None]:
    """Without the warning that peft (0.21) asks transformers (5.23) for a property by its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        yield


def _refuse_pickled_adapter(folder: Path) -> None:
    """Peft falls back on a pickled adapter_model.bin, or on the network, where there is no safetensors file."""
    if not (folder / SAFETENSORS_WEIGHTS_NAME).exists():
        raise ArtifactError(
            f"the adapter in {folder} has no {SAFETENSORS_WEIGHTS_NAME}",
            expected="weights as safetensors; pickled weights are never loaded",
            do="Save the adapter again with safe_serialization, or restore the file",
        )


def _base_of(folder: Path) -> tuple[str, str | None]:
    if (folder / BASE).is_dir():
        return str(folder / BASE), None
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return config["base_model_name_or_path"], config.get("revision")


def _save_adapter(model: PeftModel, folder: Path, settings: ModelSettings) -> None:
    """The adapter, with the pinned name of its base; a base that is nowhere else is copied in.

    Nowhere else: made from random numbers, or the whole weights of an earlier stage, which the settings do not name.
    """
    causal: Any = model.get_base_model()
    name, revision = where_is(settings) if settings.scratch is None else ("", None)
    is_named = causal.config.name_or_path == name != ""
    config = model.peft_config["default"]
    config.base_model_name_or_path, config.revision = (name, revision) if is_named else (BASE, None)
    # No embeddings are trained here; peft's default would look for the base on the network to find that out.
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    _sort_lists(folder / ADAPTER_CONFIG)
    if not is_named:
        _save_base(causal, folder / BASE)


def _sort_lists(path: Path) -> None:
    """Rewrite a JSON file with its lists sorted: peft writes sets in the order of the process's hash seed."""
    content = json.loads(path.read_text(encoding="utf-8"))
    ordered = {key: sorted(value) if isinstance(value, list) else value for key, value in content.items()}
    path.write_text(json.dumps(ordered, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_base(causal: Any, folder: Path) -> None:
    """The frozen weights under their own names, as if no adapter had ever been there."""
    if getattr(causal, "is_quantized", False):
        # In memory they are rounded to 4 bits; the checkpoint keeps what they were rounded from.
        folder.mkdir()
        source = Path(causal.config.name_or_path)
        for path in (*source.glob("*.json"), *source.glob("*.safetensors")):
            shutil.copyfile(path, folder / path.name)
        return
    state = {
        name.replace(".base_layer", ""): value for name, value in causal.state_dict().items() if ".lora_" not in name
    }
    causal.save_pretrained(str(folder), state_dict=state)


def _adapter_in_fp32(model: PeftModel) -> PeftModel:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model

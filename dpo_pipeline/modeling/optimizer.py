"""AdamW with decay on matrices only, the learning rate as a function of the step, and the weights' running mean."""

import math

import torch

from dpo_pipeline.modeling.device import require_bitsandbytes
from dpo_pipeline.modeling.settings import OptimizerSettings

MEAN = "mean_weight"


def make_optimizer(model: torch.nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters: fused where the device has it, decay on matrices, none on norms and biases.

    Raises:
        CapacityError: If an 8-bit kind is asked for where bitsandbytes cannot serve it.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.kind == "adamw":
        fused = all(parameter.device.type in {"cuda", "cpu", "mps"} for parameter in trainable)
        return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=fused)
    bitsandbytes = require_bitsandbytes(f"optimizer.kind {settings.kind}")
    kinds = {"adamw_8bit": bitsandbytes.optim.AdamW8bit, "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit}
    return kinds[settings.kind](groups, lr=settings.learning_rate)


def learning_rate_at(step: int, total: int, settings: OptimizerSettings) -> float:
    """The learning rate of a step, 0-based, of `total`; the formulas of transformers' schedules.

    >>> settings = OptimizerSettings(learning_rate=0.5, schedule="linear", warmup_share=0.2)
    >>> [round(learning_rate_at(step, 10, settings), 4) for step in (0, 1, 2, 6, 9)]
    [0.0, 0.25, 0.5, 0.25, 0.0625]
    """
    warmup = math.ceil(total * settings.warmup_share)
    if step < warmup:
        return settings.learning_rate * step / warmup
    progress = (step - warmup) / max(1, total - warmup)
    decay = {"constant": 1.0, "linear": 1 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}
    return settings.learning_rate * decay[settings.schedule]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


@torch.no_grad()
def update_means(optimizer: torch.optim.Optimizer, *, decay: float) -> None:
    """Move the running mean of each weight to decay * mean + (1 - decay) * weight; it starts at the first weight seen.

    The mean is kept among the optimizer's moments, so that checkpoints hold it and a resumed training goes on with it.
    """
    for parameter in (p for group in optimizer.param_groups for p in group["params"]):
        moments = optimizer.state[parameter]
        if MEAN in moments:
            moments[MEAN].lerp_(parameter, 1 - decay)
        else:
            moments[MEAN] = parameter.clone()


@torch.no_grad()
def take_means(optimizer: torch.optim.Optimizer) -> None:
    """Put the running means, where there are any, in the place of the weights; training is over."""
    for parameter, moments in optimizer.state.items():
        if MEAN in moments:
            parameter.copy_(moments[MEAN])

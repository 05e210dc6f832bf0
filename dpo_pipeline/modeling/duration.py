"""About how long a training takes: FLOPs over a rate measured on this machine.

6 N FLOPs per token for N trained weights (2 forward, 4 backward; arXiv 2001.08361, section 2.1), 4 N where the weights
are frozen under an adapter, 2 N more where activations are computed again.
"""

import time

import torch

from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, Precision
from dpo_pipeline.modeling.shapes import architecture_of

SECONDS_OF_MEASURING = 0.5


def flops_per_token(model: ModelSettings, compute: ComputeSettings, parameters: int) -> int:
    """FLOPs of one token's forward and backward pass.

    >>> from dpo_pipeline.modeling.settings import ScratchModel
    >>> flops_per_token(ModelSettings(scratch=ScratchModel()), ComputeSettings(gradient_checkpointing=True), 10)
    80
    """
    return parameters * ((6 if model.adapter is None else 4) + (2 if compute.gradient_checkpointing else 0))


def products_per_second(model: ModelSettings, compute: ComputeSettings) -> float:
    """FLOP/s of the feed-forward product on the device the settings choose, at the batch they ask for.

    Raises:
        CapacityError: If the device is not on this machine, or the model's shape is not known.
    """
    device, shape = choose_device(compute), architecture_of(model)
    kind = torch.bfloat16 if device.precision is Precision.BF16 else torch.float32
    tokens = min(device.batch_tokens, 4_096)
    states = torch.ones(tokens, shape.hidden_size, dtype=kind, device=device.torch)
    weights = torch.ones(shape.hidden_size, shape.intermediate_size, dtype=kind, device=device.torch)
    wait = torch.cuda.synchronize if device.kind == "cuda" else lambda: None
    (states @ weights).sum().item()
    started, done = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < SECONDS_OF_MEASURING or not done:
        _ = states @ weights
        wait()
        done += 1
    return done * 2.0 * tokens * shape.hidden_size * shape.intermediate_size / passed

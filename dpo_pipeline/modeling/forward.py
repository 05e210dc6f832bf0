"""Summed log-probs of responses through a model: packed with shared prompts, or padded where a model needs that.

Both ways give the same numbers; a probe at the start compares them on two groups and falls back, saying so.
Shapes: S responses, N response tokens, B padded rows, L padded length, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling.attention import NAME, Layout, attention
from dpo_pipeline.modeling.batches import Group, Packed, pack
from dpo_pipeline.modeling.device import Device
from dpo_pipeline.modeling.head import token_logps
from dpo_pipeline.modeling.settings import Precision

# Largest disagreement between packed and padded, in nats per response token, that counts as rounding.
PROBE_TOLERANCE = {Precision.FP32: 1e-3, Precision.BF16: 5e-2}
PROBE_GROUPS = 2


class NeededRows:
    """The last layer's output and feed-forward matrices, for the rows that predict a response token and no others.

    After the last attention no row looks at another one, so what becomes of the prompt's rows cannot matter any more:
    their products are skipped and zeros stand in. In a model of two layers this is a quarter of the work.
    """

    def __init__(self) -> None:
        self.rows: torch.Tensor | None = None

    @contextmanager
    def installed(self, backbone: Any) -> Iterator[None]:
        """Hooks on the last layer's `self_attn.o_proj` and `mlp`, where the architecture has them by these names."""
        last = (getattr(backbone, "layers", None) or [None])[-1]
        modules = [getattr(getattr(last, "self_attn", None), "o_proj", None), getattr(last, "mlp", None)]
        hooks = [
            hook
            for module in modules
            if module is not None
            for hook in (module.register_forward_pre_hook(self._select), module.register_forward_hook(self._spread))
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _select(self, _: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states, *others = arguments
        self._length = states.shape[1]
        return (states.index_select(1, self.rows), *others)

    def _spread(self, _: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        whole = output.new_zeros(output.shape[0], self._length, *output.shape[2:])
        return whole.index_copy(1, self.rows, output)


class Scorer:
    """A model as a function from packed groups to log-probs.

    Args:
        model: A transformers causal language model, or a peft model around one.
        device: Where it lies.
        packed: Shared prompts without padding; False: every response on a padded row of its own.
    """

    def __init__(self, model: Any, device: Device, *, packed: bool) -> None:
        self.model, self.device, self.packed = model, device, packed
        self._causal = causal_model(model)
        self._needed = NeededRows()

    def logps(self, batch: Packed) -> torch.Tensor:
        """The summed log-prob of each response in nats, (S,) float64 (float32 on mps, which has no float64)."""
        with self.device.autocast():
            tokens = self._packed(batch) if self.packed else self._padded(batch)
        wide = torch.float32 if tokens.device.type == "mps" else torch.float64
        # Sums of hundreds of fp32 log-probs lose a digit: 4e-4 nats in fp32 against 4e-5 in float64.
        sums = torch.zeros(len(batch.lengths), dtype=wide, device=tokens.device)
        return sums.index_add(0, batch.owners, tokens.to(wide))

    @contextmanager
    def session(self) -> Iterator[None]:
        """The context to score in: it gives the model the attention this way of scoring needs."""
        with ExitStack() as stack:
            stack.enter_context(attention(self._causal, NAME if self.packed else "sdpa"))
            if self.packed:
                stack.enter_context(self._needed.installed(self._causal.base_model))
            yield

    def _packed(self, batch: Packed) -> torch.Tensor:
        layout = Layout(batch.layout, batch.input_ids.device)
        self._needed.rows = batch.predictors.unique()
        hidden = self._causal.base_model(
            input_ids=batch.input_ids, position_ids=batch.position_ids, layout=layout, use_cache=False
        ).last_hidden_state
        head = self._causal.get_output_embeddings()
        return token_logps(hidden[0, batch.predictors], head.weight, getattr(head, "bias", None), batch.targets)

    def _padded(self, batch: Packed) -> torch.Tensor:
        ids, mask, rows, columns = _as_rows(batch)
        # Logits at the positions that some row needs, through the model's own forward with all its scales and caps.
        needed, where = columns.unique(return_inverse=True)
        logits = self._causal(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=needed).logits
        logps = logits[rows, where].float().log_softmax(-1)
        return logps.gather(-1, batch.targets[:, None])[:, 0]


def causal_model(model: Any) -> Any:
    """The transformers model inside, adapters and all: what peft wraps, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def make_scorer(model: Any, device: Device, *, probe: Sequence[Group], max_length: int, reporter: Reporter) -> Scorer:
    """A scorer on the packed path, or on the padded one where the packed path does not give the model's own numbers.

    Args:
        model: The model.
        device: Where it lies.
        probe: Some groups of the data; the two shortest with several responses are scored both ways.
        max_length: Longest prompt + response, in tokens.
        reporter: Hears which way was taken, and why.
    """
    if obstacle := _obstacle_by_name(causal_model(model).config, max_length):
        reporter.say(f"Padded path: {obstacle}. Slower, same numbers.")
        return Scorer(model, device, packed=False)
    several = sorted(probe, key=lambda group: (len(group.responses) < 2, group.tokens))[:PROBE_GROUPS]
    disagreement = _disagreement(model, device, several)
    if disagreement > PROBE_TOLERANCE[device.precision]:
        reporter.say(
            f"Padded path: packed and padded log-probs differ by {disagreement:.2g} nats per token on "
            f"{type(causal_model(model)).__name__}. Slower, same numbers."
        )
        return Scorer(model, device, packed=False)
    reporter.say(f"Packed path: prompts shared, no padding; agrees with the padded path to {disagreement:.1g}.")
    return Scorer(model, device, packed=True)


def _obstacle_by_name(config: Any, max_length: int) -> str:
    """Why the packed path cannot serve this configuration; empty where it can."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    if window and slides and window < max_length:
        return f"sliding_window {window} is shorter than max_length {max_length}"
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None):
            return f"the model caps its logits ({name} {getattr(config, name)})"
    for name in ("logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, name, None) not in {None, 1}:
            return f"the model scales its logits ({name} {getattr(config, name)})"
    if others := kinds - {"full_attention", "sliding_attention"}:
        return f"the model has layers of kind {', '.join(sorted(others))}"
    return ""


@torch.no_grad()
def _disagreement(model: Any, device: Device, groups: Sequence[Group]) -> float:
    """Largest difference between packed and padded log-probs, in nats per token; infinite where packing fails."""
    was_training = model.training
    model.eval()
    batch = pack(groups, device.torch)
    results = []
    try:
        for packed in (False, True):
            scorer = Scorer(model, device, packed=packed)
            with scorer.session():
                results.append(scorer.logps(batch))
    except (AttributeError, KeyError, TypeError, ValueError):
        # A model that does not go through AttentionInterface, or has no separate backbone and head.
        return float("inf")
    finally:
        model.train(was_training)
    difference = ((results[0] - results[1]).abs() / batch.lengths).max().item()
    return difference if difference == difference else float("inf")  # noqa: PLR0124  NaN is a disagreement


def _as_rows(batch: Packed) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompt + response on a row each, right-padded: ids and mask (B, L), and where each response token is predicted.

    Returns:
        Ids, mask, and for each of the N response tokens its row and column.
    """
    rows, columns, tokens, start = [], [], [], 0
    row_ids = batch.input_ids[0]
    for prompt, responses in batch.layout:
        prompt_ids, cursor = row_ids[start : start + prompt], start + prompt
        for response in responses:
            rows += [len(tokens)] * response
            columns += range(prompt - 1, prompt + response - 1)
            tokens.append(torch.cat([prompt_ids, row_ids[cursor : cursor + response]]))
            cursor += response
        start = cursor
    ids = pad_sequence(tokens, batch_first=True)
    mask = pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True)
    device = ids.device
    return ids, mask, torch.tensor(rows, device=device), torch.tensor(columns, device=device)

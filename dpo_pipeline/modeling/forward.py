"""Summed log-probs of responses through a model: packed with shared prompts, or padded where a model needs that.

Both ways give the same numbers; a probe at the start compares them on two groups and falls back, saying so.
Shapes: S responses, N response tokens, B padded rows, L padded length, V vocabulary.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.modeling import products
from dpo_pipeline.modeling.attention import NAME, Layout, attention
from dpo_pipeline.modeling.batches import Group, Packed, pack, with_padding
from dpo_pipeline.modeling.device import Device, is_out_of_memory
from dpo_pipeline.modeling.head import Finish, token_logps
from dpo_pipeline.modeling.settings import Precision

# Largest disagreement with the model's own forward pass, in nats per response token, that counts as rounding.
PROBE_TOLERANCE = {Precision.FP32: 1e-3, Precision.BF16: 5e-2}
PROBE_GROUPS = 2
# What an architecture or an attention kernel that cannot serve a way raises; missing memory is none of its faults.
FAULTS_OF_A_WAY = (
    AssertionError, AttributeError, ImportError, IndexError, KeyError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class NeededRows:
    """The last layer's query, output and feed-forward matrices, for rows that predict a response token and no others.

    In the last layer a prompt's rows are looked at, but what becomes of them cannot matter any more: these products are
    skipped for them and zeros stand in. In a model of two layers this is a quarter of the work.
    """

    def __init__(self) -> None:
        self.rows = torch.empty(0, dtype=torch.long)

    @contextmanager
    def installed(self, backbone: Any) -> Iterator[None]:
        """Hooks on the last layer's `q_proj`, `o_proj` and `mlp`, where the architecture has them by these names."""
        last = (getattr(backbone, "layers", None) or [None])[-1]
        attends = getattr(last, "self_attn", None)
        modules = [getattr(attends, "q_proj", None), getattr(attends, "o_proj", None), getattr(last, "mlp", None)]
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


class Way(StrEnum):
    """How a model's log-probs are computed; each gives the same numbers, at a different price."""

    TRIMMED = "packed, prompts shared, the last layer's products where they are needed"
    PACKED = "packed, prompts shared"
    PADDED = "padded rows through the model's own forward"


class Scorer:
    """A model as a function from packed groups to log-probs.

    Args:
        model: A transformers causal language model, or a peft model around one.
        device: Where it lies.
        way: How; `make_scorer` finds the cheapest one that is right.
    """

    def __init__(self, model: Any, device: Device, way: Way) -> None:
        self.model, self.device, self.way = model, device, way
        self._causal = causal_model(model)
        self._finish = Finish.of(self._causal.config)
        self._needed = NeededRows()
        self._is_padded = device.kind == "cpu" and device.precision is Precision.FP32 and products.is_faster()

    @contextmanager
    def session(self) -> Iterator[None]:
        """The context for scores and their gradients: it gives the model the attention and hooks this way needs."""
        with ExitStack() as stack:
            if self.way is not Way.PADDED:
                stack.enter_context(attention(self._causal, NAME))
                if self._is_padded:
                    stack.enter_context(products.installed(self._causal))
            if self.way is Way.TRIMMED:
                stack.enter_context(self._needed.installed(self._causal.base_model))
            yield

    def logps(self, batch: Packed) -> torch.Tensor:
        """The summed log-prob of each response in nats, (S,) float64 (float32 on mps, which has no float64)."""
        with self.device.autocast():
            tokens = self._padded(batch) if self.way is Way.PADDED else self._packed(batch)
        wide = torch.float32 if tokens.device.type == "mps" else torch.float64
        # Sums of hundreds of fp32 log-probs lose a digit: 4e-4 nats in fp32 against 4e-5 in float64.
        sums = torch.zeros(len(batch.lengths), dtype=wide, device=tokens.device)
        return sums.index_add(0, batch.owners, tokens.to(wide))

    def _packed(self, batch: Packed) -> torch.Tensor:
        padding, tokens = 0, len(batch.targets)
        if self._is_padded:
            batch, padding = with_padding(batch, products.ROWS)
        self._needed.rows = batch.needed
        last_layer = self._causal.config.get_text_config().num_hidden_layers - 1 if self.way is Way.TRIMMED else None
        hidden = self._causal.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            layout=Layout(batch.layout, batch.input_ids.device, last_layer=last_layer, padding=padding),
            use_cache=False,
        ).last_hidden_state
        head = self._causal.get_output_embeddings()
        predicting = hidden[0].index_select(0, batch.predictors)
        logps = token_logps(predicting, head.weight, getattr(head, "bias", None), batch.targets, finish=self._finish)
        return logps[:tokens]

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


def make_scorer(model: Any, device: Device, *, probe: Sequence[Group], reporter: Reporter) -> Scorer:
    """The cheapest scorer whose log-probs on two groups are those of the model's own forward pass.

    Args:
        model: The model.
        device: Where it lies.
        probe: Groups of the data, passed through once and not held; the two shortest with several responses are scored
            every way.
        reporter: Hears which way was taken, and why.
    """
    groups = heapq.nsmallest(PROBE_GROUPS, probe, key=lambda group: (len(group.responses) < 2, group.tokens))
    batch, tolerance = pack(groups, device.torch), PROBE_TOLERANCE[device.precision]
    obstacle = _obstacle_by_name(causal_model(model).config)
    reasons = [obstacle] if obstacle else []
    truth = None if obstacle else _try(Scorer(model, device, Way.PADDED), batch)
    for way in () if obstacle else (Way.TRIMMED, Way.PACKED):
        found = _try(Scorer(model, device, way), batch)
        if isinstance(found, str) or isinstance(truth, str) or truth is None:
            reasons.append(f"{way}: {found if isinstance(found, str) else truth}")
            continue
        difference = float(((found - truth).abs() / batch.lengths).max())
        if difference <= tolerance:
            reporter.say(f"Log-probs {way}; they agree with the model's own to {difference:.0e} nats a token.")
            return Scorer(model, device, way)
        reasons.append(f"{way}: differs by {difference:.2g} nats a token")
    reporter.say(f"Log-probs on {Way.PADDED}, which is slower and takes more memory; {'; '.join(reasons)}.")
    return Scorer(model, device, Way.PADDED)


def _obstacle_by_name(config: Any) -> str:
    """Why the packed ways cannot serve this configuration; empty where the probe may decide."""
    config = config.get_text_config()
    known = {"full_attention", "sliding_attention"}
    if others := sorted(set(getattr(config, "layer_types", None) or ()) - known):
        return f"the model has layers of kind {', '.join(others)}"
    if getattr(config, "attention_chunk_size", None):
        return "the model attends in chunks (attention_chunk_size)"
    return ""


@torch.no_grad()
def _try(scorer: Scorer, batch: Packed) -> torch.Tensor | str:
    """The log-probs, or what went wrong: an architecture need not take our attention, or have head and body apart."""
    was_training = scorer.model.training
    scorer.model.eval()
    try:
        with scorer.session():
            return scorer.logps(batch)
    except FAULTS_OF_A_WAY as error:
        if is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}"
    finally:
        scorer.model.train(was_training)


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

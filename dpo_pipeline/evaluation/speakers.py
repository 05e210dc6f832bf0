"""The real speaker: a model loaded through `modeling`; the only module here that touches one."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.voices import MODEL, Voice
from dpo_pipeline.evaluation.witness import Answer, Conversation, Question, Spoken
from dpo_pipeline.modeling.base import reopen_base
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.generation import generate_replies
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.scoring import Pair, score_pairs
from dpo_pipeline.modeling.settings import ComputeSettings


class CheckpointSpeaker:
    """A checkpoint that scores and replies.

    Args:
        model: As `load_policy` returns it.
        encoder: Its tokenizer and the longest conversation.
        compute: Gives `batch_tokens`.
        settings: Give the longest reply and the batch of prompts.
        reporter: Hears how far the work is.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        *,
        compute: ComputeSettings,
        settings: EvaluationSettings,
        reporter: Reporter,
    ) -> None:
        self.model, self.tokenizer, self._encoder = model, encoder.tokenizer, encoder
        self.compute, self.settings, self.reporter = compute, settings, reporter

    def score(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Log-probs by question key; over-long questions are absent."""
        pairs = [Pair(each.key, each.prompt, each.first, each.second) for each in questions]
        if not pairs:
            return {}
        scored = score_pairs(self.model, self._encoder, pairs, compute=self.compute, reporter=self.reporter)
        return {
            row.pair_id: Answer(row.chosen_logp, row.rejected_logp, row.chosen_tokens, row.rejected_tokens)
            for row in scored.rows
        }

    def reply(self, prompts: Sequence[Conversation], *, temperature: float, seed: int) -> list[Spoken]:
        """One reply per prompt."""
        made = generate_replies(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=self.settings.generation_batch_size,
            reporter=self.reporter,
        )
        return [Spoken(*each) for each in made]


@contextmanager
def speaking(
    voice: Voice,
    *,
    max_length: int,
    tokens: Sequence[Path] = (),
    compute: ComputeSettings,
    settings: EvaluationSettings,
    reporter: Reporter,
) -> Iterator[CheckpointSpeaker]:
    """A model, loaded; its memory is given back at the end, so that only one is held at a time.

    Args:
        voice: Which.
        max_length: Longest conversation in tokens.
        tokens: Artifacts whose tokens are taken over where the model has the tokenizer they were made with.
        compute: The machine.
        settings: Of the evaluation.
        reporter: Hears how far the work is.
    """
    if voice.is_before_training:
        device = choose_device(compute)
        tokenizer = AutoTokenizer.from_pretrained(str(voice.checkpoint / MODEL), trust_remote_code=False)
        model = reopen_base(voice.settings, tokenizer, device=device).to(device.torch).eval()
    else:
        model, tokenizer = load_policy(voice.checkpoint / MODEL, device=compute.device, precision=compute.precision)
        choose_device(compute)  # load_policy knows nothing of compute.threads
    encoder = Encoder(tokenizer, max_length=max_length, known=tokens)
    speaker = CheckpointSpeaker(model, encoder, compute=compute, settings=settings, reporter=reporter)
    try:
        yield speaker
    finally:
        speaker.model = None
        del model
        gc.collect()

"""A reward model as judge: any Hugging Face sequence classifier with one output, from a local folder."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation.judges import Comparison, Verdict
from dpo_pipeline.evaluation.settings import RewardJudgeSettings


class RewardJudge:
    """Prefers the reply to which a reward model gives the higher score.

    The model is loaded at the first comparison and scores each distinct conversation once, so asking in both orders
    costs nothing. A score that is not a number is no answer.

    Args:
        settings: Folder, longest conversation, batch and tie margin.
        device: A torch device name.

    Raises:
        ArtifactError: At the first comparison, if the folder holds no such classifier.
    """

    def __init__(self, settings: RewardJudgeSettings, *, device: str = "cpu") -> None:
        self.settings, self.device = settings, device
        self.name = f"reward model: {Path(settings.path).name}"
        self._loaded: tuple[Any, Any] | None = None

    def compare(self, comparisons: Sequence[Comparison]) -> list[Verdict | None]:
        """One verdict per comparison."""
        if not comparisons:
            return []
        asked = {(each.conversation, reply) for each in comparisons for reply in (each.first, each.second)}
        scores = self._scores(sorted(asked))
        return [
            _verdict(
                scores[each.conversation, each.first],
                scores[each.conversation, each.second],
                margin=self.settings.tie_margin,
            )
            for each in comparisons
        ]

    def _scores(self, asked: Sequence[tuple[Any, str]]) -> dict[tuple[Any, str], float]:
        import torch

        model, tokenizer = self._loaded = self._loaded or self._load()
        texts = [_rendered(tokenizer, conversation, reply) for conversation, reply in asked]
        order = sorted(range(len(texts)), key=lambda at: (len(texts[at]), at))
        scores: dict[tuple[Any, str], float] = {}
        for start in range(0, len(order), self.settings.batch_size):
            batch = order[start : start + self.settings.batch_size]
            tokens = tokenizer(
                [texts[at] for at in batch],
                padding=True,
                truncation=True,
                max_length=self.settings.max_length,
                return_tensors="pt",
            ).to(self.device)
            with torch.inference_mode():
                logits = model(**tokens).logits[:, 0].float().tolist()
            scores |= {asked[at]: score for at, score in zip(batch, logits, strict=True)}
        return scores

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            model = AutoModelForSequenceClassification.from_pretrained(
                self.settings.path, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(
                self.settings.path, local_files_only=True, trust_remote_code=False, truncation_side="left"
            )
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"the reward model at {self.settings.path} cannot be loaded: {error}",
                expected="a sequence classifier in Hugging Face layout with safetensors",
                do="Correct evaluation.reward_judge.path",
            ) from error
        if model.config.num_labels != 1:
            raise ArtifactError(
                f"the classifier at {self.settings.path} has {model.config.num_labels} outputs",
                expected="one output, the reward",
                do="Name a reward model in evaluation.reward_judge.path",
            )
        if model.config.pad_token_id is None:
            model.config.pad_token_id = tokenizer.pad_token_id
        return model.to(self.device).eval(), tokenizer


def _rendered(tokenizer: Any, conversation: Sequence[tuple[str, str]], reply: str) -> str:
    """The conversation by the tokenizer's chat template, or as `role: content` lines where it has none."""
    turns = [*conversation, ("assistant", reply)]
    if tokenizer.chat_template:
        messages = [{"role": role, "content": content} for role, content in turns]
        return tokenizer.apply_chat_template(messages, tokenize=False)
    return "\n".join(f"{role}: {content}" for role, content in turns)


def _verdict(first: float, second: float, *, margin: float) -> Verdict | None:
    if not (math.isfinite(first) and math.isfinite(second)):
        return None
    return Verdict.of_scores(first, second, margin=margin)

"""The plug-in point of the rule `toxicity`: whatever gives texts a score from 0 to 1.

Either a function of one's own, `package.module:function`, that takes a list of texts and returns as many numbers; or
`HuggingFaceClassifier`, which takes a text-classification model in a pinned folder. Nothing is downloaded, and code
that comes with a model is not run.
"""

# pyright: reportAttributeAccessIssue=false, reportMissingTypeStubs=false, reportPrivateImportUsage=false
# (pyarrow.compute makes its functions when it is imported; transformers is typed in part)

import functools
import importlib
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.settings import TextScorer

ScoreTexts = Callable[[Sequence[str]], Sequence[float]]
"""From texts to as many numbers from 0 (harmless) to 1."""

_ONE_AT_A_TIME = threading.Lock()
"""Sketching uses several threads; a scorer need not know."""


def scores_at_least(texts: pa.StringArray, scorer: TextScorer) -> np.ndarray:
    """Whether a text's score is at least the scorer's threshold, `(N,)` bool; every distinct text is scored once.

    Raises:
        InputError: If the scorer cannot be loaded, or does not return one number from 0 to 1 per text.
    """
    encoded = texts.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    with _ONE_AT_A_TIME:
        score = load_scorer(scorer)
        scores = [float(one) for start in range(0, len(distinct), 1_000) for one in score(distinct[start:][:1_000])]
    if len(scores) != len(distinct) or not all(0.0 <= one <= 1.0 for one in scores):
        bad = next((one for one in scores if not 0.0 <= one <= 1.0), math.nan)
        found = (
            f"the number {bad}" if len(scores) == len(distinct) else f"{len(scores)} numbers for {len(distinct)} texts"
        )
        raise InputError(
            f"the scorer of preferences.toxicity returned {found}",
            expected="one number from 0 to 1 per text",
            do="Correct the function",
        )
    return (np.array(scores) >= scorer.threshold)[encoded.indices.to_numpy()]


def load_scorer(scorer: TextScorer) -> ScoreTexts:
    """The function the settings name, or the classifier in the folder they name.

    Raises:
        InputError: If there is no such function, or the folder holds no such model.
    """
    return _loaded(scorer)  # pyright: ignore[reportArgumentType] # frozen by its configuration, so hashable


@functools.lru_cache(maxsize=2)
def _loaded(scorer: TextScorer) -> ScoreTexts:
    if scorer.model is not None:
        return HuggingFaceClassifier(scorer.model.checked_path(), scorer.labels)
    module, _, name = str(scorer.function).partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"there is no function {scorer.function}: {error}",
            expected="package.module:function, importable where the pipeline runs",
            do="Install the package, or correct preferences.toxicity.function",
        ) from error
    return function


class HuggingFaceClassifier:
    """A text-classification model of Hugging Face transformers on the CPU.

    A text's score is the probability of the named labels: for a model of exclusive labels their sum, for one that
    gives each label a probability of its own the largest.

    Args:
        folder: Configuration, tokenizer and weights in safetensors.
        labels: Names among the model's `id2label`.
    """

    BATCH = 32

    def __init__(self, folder: Path, labels: Sequence[str]) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        try:
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
            ).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{folder} holds no text-classification model: {str(error)[:200]}",
                expected="config.json, a tokenizer and model.safetensors",
                do="Download a sequence classifier into it",
            ) from error
        names = [str(name) for name in self._model.config.id2label.values()]
        missing = [label for label in labels if label not in names]
        if missing:
            raise InputError(
                f"the model in {folder} has no label {missing[0]!r}",
                expected=f"some of {', '.join(names)}",
                do="Correct preferences.toxicity.labels",
            )
        self._columns = [names.index(label) for label in labels]
        self._is_exclusive = self._model.config.problem_type != "multi_label_classification" and len(names) > 1
        self._most_tokens = min(self._tokenizer.model_max_length, self._model.config.max_position_embeddings)

    def __call__(self, texts: Sequence[str]) -> list[float]:
        """A score per text, each cut at the longest the model reads; those of like length go together."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        scores = [0.0] * len(texts)
        for start in range(0, len(order), self.BATCH):
            some = order[start : start + self.BATCH]
            for place, score in zip(some, self._score([texts[place] for place in some]), strict=True):
                scores[place] = score
        return scores

    def _score(self, texts: Sequence[str]) -> list[float]:
        import torch

        given = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._most_tokens, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = self._model(**given).logits.float()
        if self._is_exclusive:
            return logits.softmax(-1)[:, self._columns].sum(-1).clamp(max=1.0).tolist()
        return logits.sigmoid()[:, self._columns].amax(-1).tolist()

"""Texts to tokens, each text once: what an earlier artifact keeps as tokens is taken over, the rest is tokenized.

Tokens follow from the texts and the encoding (tokenizer, template, longest conversation, code) alone, so no result
shows whether they were taken over.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.modeling import processes
from dpo_pipeline.modeling.kept_tokens import TOKENS, Item, Keeping, KeptTokens, encoding_digest, keeping, keys_of
from dpo_pipeline.modeling.template import Conversation, encode


class Encoder:
    """A tokenizer with the conversations it was given before.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        max_length: Most tokens of prompt + longest response.
        known: Artifact folders, re-hashed by whoever names them; those without tokens, or made under another encoding,
            are passed over.

    Attributes:
        reused: How many conversations were taken over so far.
        tokenized: How many were not known.
    """

    def __init__(self, tokenizer: Any, *, max_length: int, known: Sequence[Path] = ()) -> None:
        self.tokenizer, self.max_length, self._folders = tokenizer, max_length, known
        self._kept: Keeping | None = None
        self.reused = self.tokenized = 0

    def encode(self, prompts: Sequence[Conversation], responses: Sequence[Sequence[str]]) -> list[Item]:
        """As `template.encode`: each prompt with its responses as tokens, or the reason why not, in the order given."""
        if self._kept is None and not self._known:
            self.tokenized += len(prompts)
            return encode(self.tokenizer, prompts, responses, max_length=self.max_length)
        keys = keys_of(prompts, responses)
        found: list[Item | None] = [None] * len(prompts)
        new = [*range(len(prompts))]
        for kept in self._known:
            if new:  # what one table holds is not looked for in the next: that would decode the same texts again
                for place, item in zip(new, kept.find(keys[new]), strict=True):
                    found[place] = item
                new = [place for place in new if found[place] is None]
        made = iter(
            encode(self.tokenizer, [prompts[n] for n in new], [responses[n] for n in new], max_length=self.max_length)
        )
        items = [next(made) if item is None else item for item in found]
        self.tokenized += len(new)
        self.reused += len(items) - len(new)
        if self._kept is not None:
            self._kept.add(keys, items)
        return items

    @contextmanager
    def keeping_in(self, folder: Path) -> Iterator[None]:
        """Everything encoded inside is kept in the folder's `tokens.parquet`; the first of several processes writes."""
        if not processes.is_first():
            yield
            return
        with keeping(folder, self._encoding) as self._kept:
            yield
        self._kept = None

    @property
    def words(self) -> str:
        """What was tokenized and what taken over, in a sentence."""
        known = f"; those of {self.reused:,} others are kept from an earlier pass" if self.reused else ""
        return f"Tokens made of {self.tokenized:,} conversations{known}."

    @cached_property
    def _encoding(self) -> str:
        return encoding_digest(self.tokenizer, max_length=self.max_length)

    @cached_property
    def _known(self) -> list[KeptTokens]:
        paths = [folder / TOKENS for folder in self._folders]
        try:
            return [KeptTokens(path) for path in paths if KeptTokens.encoding(path) == self._encoding]
        except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
            raise ArtifactError(
                f"tokens of an earlier artifact cannot be read: {error}",
                expected=f"{TOKENS} as it was published",
                do="Leave the artifact out of `known`, or materialize its asset again",
            ) from error

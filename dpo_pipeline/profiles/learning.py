"""What a training would learn from, before it starts: how many examples, and a sample of them as it would pack them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.errors import ArtifactError, CapacityError, InputError
from dpo_pipeline.core.home import Home
from dpo_pipeline.modeling.base import settle_tokenizer, train_tokenizer
from dpo_pipeline.modeling.batches import Comparison, Group, cut_by_tokens, plan_steps
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.examples import group_pairs
from dpo_pipeline.modeling.scoring import Pair, encode_pairs
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings
from dpo_pipeline.modeling.shapes import base_file
from dpo_pipeline.modeling.template import Conversation, LeftOut, encode
from dpo_pipeline.profiles import Profile
from dpo_pipeline.sft.demonstrations import read_demonstrations

SAMPLED = 2_000
"""Examples that are tokenized to know how long they are."""
READ_WHOLE = 20_000
"""Up to so many demonstrations are sorted as the stage sorts them; of more, all but the share held out are counted."""
TEMPLATE_TOKENS = 6  # what a chat template puts around a text
CHARACTERS_PER_TOKEN = 3.5


@dataclass(frozen=True, slots=True)
class Learned:
    """What a stage learns from.

    Attributes:
        count: Examples: conversations or pairs.
        sample: Some of them as groups, whole prompts.
        source: How that is known, in words.
    """

    count: int
    sample: Sequence[Group]
    source: str

    def steps(self, *, batch_size: int, epochs: float, seed: int) -> tuple[int, float]:
        """Optimizer steps in all and tokens of one: the stage's own where the sample is all, else in proportion to it.

        Args:
            batch_size: Examples a step.
            epochs: Passes.
            seed: Of the stage's order; what a step has room for depends on it a little.
        """
        weights, sizes = self._weights(), [group.tokens for group in self.sample]
        steps = plan_steps(weights, batch_size=batch_size, epochs=epochs, seed=seed)
        tokens, examples = sum(sizes[place] for step in steps for place in step), sum(weights)
        if examples >= self.count:
            return len(steps), tokens / len(steps)
        at_least = int(epochs * -(-self.count // batch_size))
        count = max(at_least, round(len(steps) * self.count / examples))
        return count, tokens * self.count / examples / count

    def micro_batches(self, *, batch_size: int, batch_tokens: int, seed: int) -> list[list[Group]]:
        """One pass over the sample as the stage would cut it."""
        steps = plan_steps(self._weights(), batch_size=batch_size, epochs=1, seed=seed)
        batches = (cut_by_tokens([self.sample[place] for place in step], batch_tokens=batch_tokens) for step in steps)
        return [batch for step in batches for batch in step]

    def _weights(self) -> list[int]:
        return [max(1, len(group.comparisons)) for group in self.sample]


def supposed(model: ModelSettings, count: int, *, responses: int, batch_size: int) -> Learned:
    """So many examples of half of max_length each: half of it the prompt, the rest shared by the responses."""
    size, chance = model.max_length // 4, np.random.default_rng(0)
    shape = (size, *[size // responses] * responses)
    comparisons = (Comparison(0, 1, 0),) if responses > 1 else ()
    groups = [
        Group(tokens[0], tuple(tokens[1:]), comparisons)
        for _ in range(min(count, 4 * batch_size))
        if (tokens := [chance.integers(3, 250, length).astype(np.int32) for length in shape])
    ]
    return Learned(count, groups, f"supposing {model.max_length // 2:,} tokens each, half of max_length")


class Learning:
    """What the two stages of a profile would learn from a home's tables.

    Args:
        home: Its tables.
        profile: Its settings.
    """

    def __init__(self, home: Home, profile: Profile) -> None:
        self._home, self._profile = home, profile

    def by_sft(self) -> Learned | None:
        """Demonstrations, sorted and tokenized as SFT would; None where there are none."""
        talks, count = self._conversations
        if not talks:
            return None
        prompts, replies = [talk[:-1] for talk in talks], [[talk[-1]["content"]] for talk in talks]
        tokenizer, source = self._tokenizer
        if tokenizer is None:
            groups = [_by_characters(prompt, reply) for prompt, reply in zip(prompts, replies, strict=True)]
        else:
            encoded = encode(tokenizer, prompts, replies, max_length=self._profile.model.max_length)
            groups = [Group(item.prompt, item.responses) for item in encoded if not isinstance(item, LeftOut)]
        return _learned(count, groups, len(talks), 1 - self._profile.sft.validation_share, source)

    def by_dpo(self) -> Learned | None:
        """Training pairs, grouped and tokenized as DPO would; None where there are none."""
        path = self._pairs
        if path is None:
            return None
        names = pq.read_table(path, columns=["prompt_id", "split"]).filter(pc.field("split") == "train")["prompt_id"]
        if not len(names):
            return None
        prompts = Counter(names.to_pylist())
        wanted = set(_spread(list(prompts), -(-SAMPLED * len(prompts) // len(names))))
        rows = list(_rows(path, wanted))
        tokenizer, source = self._tokenizer
        model, dpo = self._profile.model, self._profile.dpo
        if tokenizer is None:
            groups = [_by_characters(row["prompt"], [row["chosen"], row["rejected"]]) for row in rows]
        else:
            pairs = [Pair(row["pair_id"], row["prompt"], row["chosen"], row["rejected"]) for row in rows]
            encoded = encode_pairs(Encoder(tokenizer, max_length=model.max_length), pairs).pairs
            most = _batch_tokens(self._profile.compute)
            groups = list(group_pairs(encoded, most_pairs=dpo.batch_size, most_tokens=most))
        return _learned(len(names), groups, len(rows), 1 - dpo.validation_share, source)

    def lacks(self, unit: str) -> str:
        """Why there are no `demonstrations` or `pairs` to learn, in words: not read, not built, or none of use."""
        drops = self._home.partitions("demonstrations")
        if not drops:
            return "no drop has been read in this home yet"
        if self._pairs is None:
            return f"preference_pairs of the {len(drops)} drops read is not made yet, and both stages learn by it"
        return f"no {unit} are left to learn from in this home's {len(drops)} drops"

    @cached_property
    def _pairs(self) -> Path | None:
        try:
            return self._home.latest("preference_pairs").path / "pairs.parquet"
        except ArtifactError:
            return None

    @cached_property
    def _conversations(self) -> tuple[list[Conversation], int]:
        """Some conversations SFT would learn from, and how many there are."""
        if self._pairs is None:
            return [], 0
        home, sft = self._home, self._profile.sft
        drops = [home.latest("demonstrations", drop).path for drop in home.partitions("demonstrations")]
        paths = [drop / "demonstrations.parquet" for drop in drops]
        count = sum(pq.read_metadata(path).num_rows for path in paths)
        if sft.chosen_as_demonstrations:
            count += pq.read_metadata(self._pairs).num_rows
        if count <= READ_WHOLE:
            found = read_demonstrations(drops, self._pairs.parent, settings=sft, seed=self._profile.model.seed)
            return [found.train[place] for place in _spread(range(len(found.train)), SAMPLED)], len(found.train)
        talks = [row["messages"] for path in paths for row in _first_rows(path, ["messages"])]
        if sft.chosen_as_demonstrations:
            rows = _first_rows(self._pairs, ["prompt", "chosen"])
            talks += [[*row["prompt"], {"role": "assistant", "content": row["chosen"]}] for row in rows]
        return [talks[place] for place in _spread(range(len(talks)), SAMPLED)], round(count * (1 - sft.held_out_share))

    @cached_property
    def _tokenizer(self) -> tuple[Any, str]:
        """The tokenizer the trainings would use, or one like it; None where there is none here. And in words."""
        model, talks = self._profile.model, self._conversations[0]
        folder = _tokenizer_folder(self._home, model)
        if folder is None and model.scratch is not None and talks:
            texts = (message["content"] for talk in talks for message in talk)
            made = train_tokenizer(texts, vocabulary_size=model.scratch.vocabulary_size)
            return made, "this home's, by a tokenizer made from a sample of them"
        if folder is None:
            return None, f"this home's, at {CHARACTERS_PER_TOKEN} characters a token"
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
        try:
            settle_tokenizer(tokenizer, model)
        except InputError:  # training will say so; until then the length of texts can be told
            return None, f"this home's, at {CHARACTERS_PER_TOKEN} characters a token"
        return tokenizer, f"this home's, by the tokenizer in {folder.name}"


def _learned(count: int, groups: list[Group], sampled: int, share: float, source: str) -> Learned | None:
    """What is left out of the sample is left out of the whole in proportion, and a share is kept aside."""
    kept = sum(max(1, len(group.comparisons)) for group in groups) / sampled
    learned = round(count * kept * share)
    return Learned(learned, groups, source) if learned else None


def _rows(path: Path, prompts: set[str]) -> Iterator[dict[str, Any]]:
    columns = ["pair_id", "prompt_id", "split", "prompt", "chosen", "rejected"]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(4_096, columns=columns):
            wanted = pc.field("prompt_id").isin(list(prompts)) & (pc.field("split") == "train")
            yield from batch.filter(wanted).to_pylist()


def _first_rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    """At most SAMPLED rows; none where a drop has no demonstrations, whose table has not even a row group."""
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(SAMPLED, columns=columns), None)
        return [] if batch is None else batch.to_pylist()


def _batch_tokens(compute: ComputeSettings) -> int:
    """What the device of the settings takes at once, or what they say where it is not on this machine."""
    try:
        return choose_device(compute).batch_tokens
    except CapacityError:
        return compute.batch_tokens


def _spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most about `count` of the items, evenly spread."""
    return list(items[:: max(1, len(items) // max(1, count))])


def _tokenizer_folder(home: Home, model: ModelSettings) -> Path | None:
    """Where the base's tokenizer lies, or of a base made from nothing, that of this home's newest SFT checkpoint."""
    if model.scratch is None:
        path = base_file(model, "tokenizer.json")
        return path.parent if path.is_file() else None
    try:
        return home.latest("sft_checkpoint").path / "model"
    except ArtifactError:
        return None


def _by_characters(prompt: Conversation, responses: Sequence[str]) -> Group:
    """A group of about the right length, of tokens that mean nothing."""
    sizes = [sum(len(turn["content"]) for turn in prompt), *map(len, responses)]
    tokens = [np.full(round(size / CHARACTERS_PER_TOKEN) + TEMPLATE_TOKENS, 3, np.int32) for size in sizes]
    return Group(tokens[0], tuple(tokens[1:]), (Comparison(0, 1, 0),) if len(responses) > 1 else ())

"""Which conversations SFT learns from: demonstrations of all drops, minus what the evaluation must not have seen."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpo_pipeline.core.books import Books
from dpo_pipeline.core.lazy import Lazy
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.modeling.template import Conversation
from dpo_pipeline.preferences.personal_data import redact_conversations, redacted_in
from dpo_pipeline.sft.held_out import PAIRS, HeldOutPrompts
from dpo_pipeline.sft.settings import SftSettings

DEMONSTRATIONS = "demonstrations.parquet"
ROWS_AT_ONCE = 4_096


class Conversations(Lazy[Conversation]):
    """Conversations in the order in which they were added, held as Arrow holds text: a fifth of the memory of lists."""

    def __init__(self) -> None:
        self._chunks, self._last = list[pa.Array](), list[Conversation]()

    def append(self, conversation: Conversation) -> None:
        """Add one at the end."""
        self._last.append(conversation)
        if len(self._last) == ROWS_AT_ONCE:
            self._chunks.append(pa.array(self._last, MESSAGES))
            self._last = []

    def __len__(self) -> int:
        return len(self._chunks) * ROWS_AT_ONCE + len(self._last)

    def item(self, place: int) -> Conversation:
        """One of them, as messages."""
        chunk, row = divmod(place, ROWS_AT_ONCE)
        return self._last[row] if chunk == len(self._chunks) else self._chunks[chunk][row].as_py()


@dataclass(slots=True)
class Demonstrations:
    """Conversations by use, and what became of every one that came in.

    Attributes:
        train: To learn from.
        names: What each of those is called: its demonstration_id, or the pair_id of a chosen response.
        held_out: Kept aside, by prompt, to measure perplexity on.
        books: In = train + held_out + merged (exact repeats) + rejected by reason.
        against_permission: Conversations learned from although their source forbids it (`override_sft_permission`).
    """

    train: Conversations = field(default_factory=Conversations)
    names: list[str] = field(default_factory=list)
    held_out: Conversations = field(default_factory=Conversations)
    books: Books = field(default_factory=Books)
    against_permission: int = 0


def read_demonstrations(
    demonstrations: Sequence[Path], pairs: Path, *, settings: SftSettings, seed: int
) -> Demonstrations:
    """The conversations of all drops, sorted by use.

    Laws: a prompt is never in both uses; adding conversations moves no other one from one use to the other; a prompt
    on the evaluation's side of the preference split (held out or quarantined), or nearly one of those, is in neither;
    personal data that the pairs' rules take out of them are in no conversation.

    Args:
        demonstrations: `demonstrations` artifact folders, in order of arrival.
        pairs: The `preference_pairs` artifact folder.
        settings: Share kept aside, and whether chosen responses are learned too.
        seed: Seed of the choice of what is kept aside.
    """
    held_out, rules = HeldOutPrompts(pairs, similarity=settings.held_out_similarity), redacted_in(pairs / PAIRS)
    result, seen = Demonstrations(), set[bytes]()
    for messages, names, permitted in conversations(demonstrations, pairs, settings):
        ids, reasons = held_out.reasons([conversation[:-1] for conversation in messages])
        rows = zip(_redacted(messages, rules), names, permitted, ids, reasons, strict=True)
        for conversation, name, is_permitted, prompt_id, reason in rows:
            result.books.records_in += 1
            identity = blake2b(f"{prompt_id}\0{conversation[-1]['content']}".encode(), digest_size=16).digest()
            if not (is_permitted or settings.override_sft_permission):
                result.books.rejected["sft_not_permitted"] += 1
            elif reason is not None:
                result.books.rejected[reason] += 1
            elif identity in seen:
                result.books.merged += 1
            else:
                seen.add(identity)
                result.against_permission += not is_permitted
                if is_for_perplexity(prompt_id, share=settings.held_out_share, seed=seed):
                    result.held_out.append(conversation)
                else:
                    result.train.append(conversation)
                    result.names.append(name)
    result.books.kept = Counter(train=len(result.train), held_out=len(result.held_out))
    result.books.assert_balanced(of="the demonstrations")
    return result


def is_for_perplexity(prompt_id: str, *, share: float, seed: int) -> bool:
    """Whether the demonstrations of a prompt are kept aside, to measure perplexity on."""
    return seed_for(seed, "sft held out", prompt_id) < share * 2**63


def conversations(
    demonstrations: Sequence[Path], pairs: Path, settings: SftSettings
) -> Iterator[tuple[list[list[dict[str, str]]], list[str], list[bool]]]:
    """Batches of conversations that end with the assistant's turn, their names, whether their source permits SFT."""
    for folder in demonstrations:
        with pq.ParquetFile(folder / DEMONSTRATIONS) as file:
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=["demonstration_id", "messages"]):
                names, messages = (batch.column(name).to_pylist() for name in ("demonstration_id", "messages"))
                yield messages, names, [True] * len(messages)
    if not settings.chosen_as_demonstrations:
        return
    with pq.ParquetFile(pairs / PAIRS) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=["pair_id", "prompt", "chosen", "split", "sft_allowed"]):
            rows = batch.filter(pc.field("split") == "train").to_pylist()
            yield (
                [[*row["prompt"], {"role": "assistant", "content": row["chosen"]}] for row in rows],
                [row["pair_id"] for row in rows],
                [row["sft_allowed"] for row in rows],
            )


def _redacted(messages: Sequence[Conversation], rules: frozenset[str]) -> Sequence[Conversation]:
    return redact_conversations(pa.array(messages, MESSAGES), rules=rules).to_pylist() if rules else messages

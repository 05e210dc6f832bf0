"""What models and paid judges answered in earlier evaluations, so that nobody is asked the same thing again.

A cache and never an input: a key holds the digests of weights, tokenizer, text, settings, device and code, and without
any of it the report is the same (to rounding, where a batch is cut differently).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.evaluation.judges import Verdict
from dpo_pipeline.evaluation.schemas import ANSWERS
from dpo_pipeline.evaluation.witness import Answer, Conversation, Question, Speaker, Spoken

ANSWERS_FILE, REPLIES_FILE, VERDICTS_FILE = "answers.parquet", "replies.parquet", "verdicts.jsonl"
VALUES = ("chosen_logp", "rejected_logp", "chosen_tokens", "rejected_tokens")


class Memory:
    """Answers and replies by the digest of who was asked what.

    Args:
        folders: Earlier evaluation_report artifacts, re-hashed by whoever names them; a file that cannot be read is
            passed over, since nothing depends on it.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._answers: dict[str, Answer | None] = {}
        self._replies: dict[str, Spoken] = {}
        self.used: dict[str, Answer | None] = {}
        self.verdicts: dict[str, Verdict] = {}
        for folder in reversed(folders):
            self.verdicts |= _verdicts(folder / VERDICTS_FILE)
            for row in _rows(folder / ANSWERS_FILE, ["key", *VALUES]):
                values = [row[name] for name in VALUES]
                self._answers[row["key"]] = None if row["chosen_tokens"] is None else Answer(*values)
            for row in _rows(folder / REPLIES_FILE, ["key", "reply", "token_count", "is_finished"]):
                spoken = Spoken(row["reply"], row["token_count"], row["is_finished"], row["key"])
                self._replies[row["key"]] = spoken

    def has_answer(self, key: str) -> bool:
        """Whether this was asked before, also where the model could not answer."""
        return key in self._answers

    def answer(self, key: str) -> Answer | None:
        """The answer to a question asked before; None where it could not be scored."""
        self.used[key] = self._answers[key]
        return self._answers[key]

    def learn(self, key: str, answer: Answer | None) -> None:
        """Keep an answer."""
        self._answers[key] = self.used[key] = answer

    def replies(self, keys: Sequence[str]) -> list[Spoken] | None:
        """The replies of these keys if all are known: a batch is a whole, since its prompts share one chance."""
        found = [self._replies[key] for key in keys if key in self._replies]
        return found if len(found) == len(keys) else None

    def write(self, folder: Path, verdicts: Mapping[str, Verdict]) -> None:
        """Write the answers used in this evaluation and the verdicts that cost money, where there are any.

        replies.parquet, with its keys, is the report's own table.
        """
        rows = [
            {"key": key, **{name: None if answer is None else getattr(answer, name) for name in VALUES}}
            for key, answer in sorted(self.used.items())
        ]
        write_table(folder / ANSWERS_FILE, pa.Table.from_pylist(rows, schema=ANSWERS))
        if verdicts:
            lines = [json.dumps({"key": key, "verdict": verdict.value}) for key, verdict in sorted(verdicts.items())]
            (folder / VERDICTS_FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Remembering:
    """A speaker that is opened only for what it was never asked.

    Args:
        opened: Gives the real speaker, the same one each time.
        identity: Digest of everything that shapes an answer beside the question.
        generation: Digest of everything else that shapes a reply: longest reply, batch.
        memory: What is known.
    """

    def __init__(self, opened: Callable[[], Speaker], *, identity: str, generation: str, memory: Memory) -> None:
        self._opened, self._identity, self._generation, self._memory = opened, identity, generation, memory

    def score(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Log-probs by question key; a question that cannot be scored is absent."""
        keys = {each.key: self._key("score", each.prompt, each.first, each.second) for each in questions}
        new = [each for each in questions if not self._memory.has_answer(keys[each.key])]
        scored = self._opened().score(new) if new else {}
        for each in new:
            self._memory.learn(keys[each.key], scored.get(each.key))
        answers = {each.key: self._memory.answer(keys[each.key]) for each in questions}
        return {key: answer for key, answer in answers.items() if answer is not None}

    def reply(self, prompts: Sequence[Conversation], *, temperature: float, seed: int) -> list[Spoken]:
        """One reply per prompt; temperature 0 is greedy."""
        chance = seed if temperature else None
        together = self._key("reply", self._generation, temperature, chance, [_plain(prompt) for prompt in prompts])
        keys = [digest_of_json([together, at]) for at in range(len(prompts))]
        known = self._memory.replies(keys)
        if known is not None:
            return known
        said = self._opened().reply(prompts, temperature=temperature, seed=seed)
        return [each._replace(key=key) for each, key in zip(said, keys, strict=True)]

    def _key(self, *asked: object) -> str:
        return digest_of_json([self._identity, *(_plain(part) for part in asked)])


def _plain(part: object) -> object:
    """A conversation as plain values; anything else as it is."""
    if isinstance(part, Sequence) and not isinstance(part, str):
        return [dict(each) if isinstance(each, Mapping) else each for each in part]
    return part


def _verdicts(path: Path) -> dict[str, Verdict]:
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {str(line["key"]): Verdict(line["verdict"]) for line in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _rows(path: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        return pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowInvalid, KeyError):
        return []

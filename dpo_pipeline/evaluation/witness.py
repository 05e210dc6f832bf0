"""One model questioned: its log-probs of the held-out pairs, its replies, its loss on demonstrations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut, Row
from dpo_pipeline.evaluation.preferences import PairScores
from dpo_pipeline.evaluation.replies import Reply
from dpo_pipeline.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt with two texts whose log-probs are wanted."""

    key: str
    prompt: Conversation
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Log-probs of the two texts of a question, summed over their tokens, in nats."""

    chosen_logp: float
    rejected_logp: float
    chosen_tokens: int
    rejected_tokens: int


class Spoken(NamedTuple):
    """A reply as a speaker gives it: text, tokens (the end not counted), whether the model ended it; a key if known."""

    text: str
    token_count: int
    is_finished: bool
    key: str = ""


class Speaker(Protocol):
    """A loaded model, as far as the evaluation needs it; `speakers.py` has the real one, tests have small ones."""

    def score(self, questions: Sequence[Question]) -> Mapping[str, Answer]:
        """Log-probs by question key; a question that cannot be scored is absent."""
        ...

    def reply(self, prompts: Sequence[Conversation], *, temperature: float, seed: int) -> list[Spoken]:
        """One reply per prompt; temperature 0 is greedy."""
        ...


@dataclass(slots=True)
class Statement:
    """What one model said.

    Attributes:
        name: `sft`, `dpo`, `base`, `champion`.
        answers: Its log-probs by pair_id.
        replies: By decoding (`greedy`, `sampled`), one per prompt in order; empty where it was not asked to reply.
        own_samples: Its own log-probs of its finished sampled replies, by prompt_id; empty for the reference.
        demonstrations: Its log-prob (`chosen_*`) of each held-out demonstration it could score, by position.
    """

    name: str
    answers: Mapping[str, Answer]
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    own_samples: Mapping[str, Answer] = field(default_factory=dict)
    demonstrations: Mapping[str, Answer] = field(default_factory=dict)

    def scores_of(self, pairs: Sequence[Row]) -> PairScores:
        """The log-probs of these pairs as arrays, in their order.

        Raises:
            KeyError: If one of them was not scored.
        """
        answers = [self.answers[pair["pair_id"]] for pair in pairs]
        return PairScores(
            np.array([answer.chosen_logp for answer in answers], dtype=np.float64),
            np.array([answer.rejected_logp for answer in answers], dtype=np.float64),
            np.array([answer.chosen_tokens for answer in answers], dtype=np.int64),
            np.array([answer.rejected_tokens for answer in answers], dtype=np.int64),
        )


def question(
    speaker: Speaker,
    held_out: HeldOut,
    *,
    name: str,
    demonstrations: Sequence[Conversation],
    settings: EvaluationSettings,
    is_reference: bool = False,
    known: PairScores | None = None,
    reporter: Reporter,
) -> Statement:
    """Ask one model everything.

    Args:
        speaker: The loaded model.
        held_out: Pairs to score and prompts to reply to.
        name: The model's name in the report.
        demonstrations: Held-out demonstrations whose last turn's loss is wanted.
        settings: How many tokens, at which temperature, which seed.
        is_reference: Whether it is the one the others are measured against; its own samples need no scores.
        known: Log-probs of the pairs where they are known already (the reference's); they are not computed again.
        reporter: Hears what is being done.

    A model whose log-probs are not all numbers is not asked to reply: sampling from NaN has no meaning.
    """
    if known is None:
        reporter.say(f"{name}: scoring {len(held_out.pairs)} held-out pairs")
        pairs = [Question(row["pair_id"], row["prompt"], row["chosen"], row["rejected"]) for row in held_out.pairs]
        statement = Statement(name, speaker.score(pairs))
    else:
        statement = Statement(name, _known_answers(held_out, known))
    _ask_demonstrations(speaker, statement, demonstrations)
    scores = [(answer.chosen_logp, answer.rejected_logp) for answer in statement.answers.values()]
    if not np.isfinite(np.array(scores)).all():
        reporter.say(f"{name}: some log-probs are not numbers; it is not asked to reply")
        return statement
    reporter.say(f"{name}: replying to {len(held_out.prompts)} held-out prompts, greedy and sampled")
    for decoding, temperature in (("greedy", 0.0), ("sampled", settings.sampling_temperature)):
        statement.replies[decoding] = _replies(speaker, held_out, name, decoding, temperature, settings)
    if not is_reference:
        statement.own_samples = speaker.score(sample_questions(statement, held_out))
    return statement


def sample_questions(statement: Statement, held_out: HeldOut) -> list[Question]:
    """The finished sampled replies of a model as questions, so that it and its reference can score them.

    Replies cut at the limit are left out: the end token that scoring adds was never drawn.
    """
    if not statement.replies:
        return []
    greedy, sampled = statement.replies["greedy"], statement.replies["sampled"]
    return [
        Question(row["prompt_id"], row["prompt"], drawn.text, plain.text)
        for row, drawn, plain in zip(held_out.prompts, sampled, greedy, strict=True)
        if drawn.is_finished and drawn.text.strip()
    ]


def _replies(
    speaker: Speaker,
    held_out: HeldOut,
    name: str,
    decoding: str,
    temperature: float,
    settings: EvaluationSettings,
) -> list[Reply]:
    prompts = [row["prompt"] for row in held_out.prompts]
    if not prompts:
        return []
    said = speaker.reply(prompts, temperature=temperature, seed=seed_for(settings.seed, "evaluation", decoding))
    return [
        Reply(row["prompt_id"], name, decoding, each.text, each.token_count, each.is_finished, each.key)
        for row, each in zip(held_out.prompts, said, strict=True)
    ]


def _ask_demonstrations(speaker: Speaker, statement: Statement, demonstrations: Sequence[Conversation]) -> None:
    """Loss per demonstration through `score`, since an interval needs each one; the second text is a cheap stand-in."""
    questions = [
        Question(str(at), conversation[:-1], conversation[-1]["content"], ".")
        for at, conversation in enumerate(demonstrations)
    ]
    statement.demonstrations = speaker.score(questions) if questions else {}


def _known_answers(held_out: HeldOut, known: PairScores) -> dict[str, Answer]:
    columns = (known.chosen, known.rejected, known.chosen_tokens, known.rejected_tokens)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {pair["pair_id"]: Answer(*row) for pair, row in zip(held_out.pairs, rows, strict=True)}

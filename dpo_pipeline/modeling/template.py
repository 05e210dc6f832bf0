"""Conversations as tokens: chat template, where the response starts, what is cut and what is left out.

The response starts where the rendered prompt and the rendered prompt + response part ways, token by token (TRL's rule),
so the loss covers the assistant's words and its end of turn, and nothing else.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

Conversation = Sequence[Mapping[str, str]]
"""Messages `{"role": ..., "content": ...}`: system, user and assistant turns in order."""

Tokens = npt.NDArray[np.int32]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")

TEMPLATE_DAY = date(2024, 7, 26)
"""What the day is to a template that asks: what Llama's templates write where there is no clock."""
ASKS_THE_DAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")

LEAST_PROMPT_TOKENS = 8
TOKENIZE_AT_ONCE = 512


class LeftOut(StrEnum):
    """Why a conversation cannot be trained on or scored; the value is the code in the books."""

    RESPONSE_TOO_LONG = "response_too_long"
    SPECIAL_TOKEN_IN_TEXT = "special_token_in_text"  # noqa: S105  a reason code, not a password
    REFUSED_BY_TEMPLATE = "refused_by_template"

    @property
    def sentence(self) -> str:
        """The reason in words."""
        return {
            LeftOut.RESPONSE_TOO_LONG: "a response leaves no room for the prompt within model.max_length; "
            "responses are never cut",
            LeftOut.SPECIAL_TOKEN_IN_TEXT: "the text spells out one of the tokenizer's special tokens, "
            "which would be read as the end of a turn or the like",
            LeftOut.REFUSED_BY_TEMPLATE: "the chat template refuses the conversation's roles or their order",
        }[self]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt and its responses as token ids.

    Attributes:
        prompt: Token ids of the prompt, at least one.
        responses: Token ids of each response, end of turn included.
        prompt_tokens_cut: How many were cut from the left of the prompt to fit `max_length`.
    """

    prompt: Tokens
    responses: tuple[Tokens, ...]
    prompt_tokens_cut: int = 0


def encode(
    tokenizer: Any, prompts: Sequence[Conversation], responses: Sequence[Sequence[str]], *, max_length: int
) -> list[Encoded | LeftOut]:
    """Each prompt with its responses as tokens, or the reason why not, in the order given.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        prompts: Conversations that end with a user turn.
        responses: The assistant's replies to each prompt; as many as one likes.
        max_length: Most tokens of prompt + longest response; the prompt is cut from the left, a response never.
    """
    results: list[Encoded | LeftOut] = []
    for start in range(0, len(prompts), TOKENIZE_AT_ONCE):
        stop = start + TOKENIZE_AT_ONCE
        results += _encode_block(tokenizer, prompts[start:stop], responses[start:stop], max_length)
    return results


def encode_prompts(tokenizer: Any, prompts: Sequence[Conversation], *, max_length: int) -> list[Tokens]:
    """Each prompt as tokens up to where the assistant starts to speak; cut from the left to `max_length`.

    Special tokens spelled out in the text are taken for what they spell: nothing is learned from them here.
    """
    texts = [_text(tokenizer, _plain(prompt), add_generation_prompt=True) for prompt in prompts]
    return [_cut(_ids(tokens), max_length, tokenizer.bos_token_id) for tokens in _tokenize(tokenizer, texts)]


def losses_in_words(cut: Sequence[int], left_out: Mapping[str, int], *, max_length: int) -> Iterator[str]:
    """What encoding cost, in sentences; none where it cost nothing.

    Args:
        cut: Tokens cut off each prompt that was too long.
        left_out: How many examples were left out, by reason code.
        max_length: As in the settings.

    >>> cut, left_out = losses_in_words([30, 12], {"response_too_long": 1}, max_length=64)
    >>> cut
    'Prompts cut at their beginning to fit max_length 64: 2, by 42 tokens in all, 30 at most.'
    >>> left_out[:71]
    'Left out as response_too_long: 1; a response leaves no room for the pro'
    """
    if cut:
        yield (
            f"Prompts cut at their beginning to fit max_length {max_length:,}: {len(cut):,}, by {sum(cut):,} tokens in "
            f"all, {max(cut):,} at most."
        )
    for reason, count in left_out.items():
        yield f"Left out as {reason}: {count:,}; {LeftOut(reason).sentence}."


@lru_cache(maxsize=8)
def end_of_turn_ids(tokenizer: Any) -> frozenset[int]:
    """The special tokens at which a reply ends: the tokenizer's end of sequence and what the template writes there."""
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tokens = _tokenize(tokenizer, [_text(tokenizer, turn)])[0]
    special, ends = _special_ids(tokenizer), {tokenizer.eos_token_id} - {None}
    for token in reversed(tokens):
        if token in special:
            ends.add(token)
        elif tokenizer.decode([token]).strip():
            break
    return frozenset(ends)


def what_shapes_tokens(tokenizer: Any) -> Mapping[str, Any]:
    """What shapes the tokens of a conversation besides its text, without the cutting and padding that happen to be set.

    Vocabulary and merges, special tokens, template.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend else {"vocabulary": tokenizer.get_vocab()}
    return {
        "tokenizer": {name: part for name, part in parts.items() if name not in {"truncation", "padding"}},
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "template": tokenizer.get_chat_template(),
    }


def _encode_block(
    tokenizer: Any, prompts: Sequence[Conversation], responses: Sequence[Sequence[str]], max_length: int
) -> list[Encoded | LeftOut]:
    """Render all texts, tokenize them in one call, then put each conversation together."""
    rendered = [_render(tokenizer, prompt, replies) for prompt, replies in zip(prompts, responses, strict=True)]
    texts = [text for item in rendered if not isinstance(item, LeftOut) for text in item]
    tokens = iter(_tokenize(tokenizer, texts))
    return [
        item if isinstance(item, LeftOut) else _assemble(tokenizer, [next(tokens) for _ in item], max_length)
        for item in rendered
    ]


def _render(tokenizer: Any, prompt: Conversation, replies: Sequence[str]) -> list[str] | LeftOut:
    """The prompt's text and the text with each reply after it."""
    messages = _plain(prompt)
    if _special_pattern(tokenizer).search("\n".join((*(m["content"] for m in messages), *replies))):
        return LeftOut.SPECIAL_TOKEN_IN_TEXT
    try:
        return [
            _text(tokenizer, messages, add_generation_prompt=True),
            *(_text(tokenizer, [*messages, {"role": "assistant", "content": reply}]) for reply in replies),
        ]
    except jinja2.TemplateError:
        return LeftOut.REFUSED_BY_TEMPLATE


def _text(tokenizer: Any, messages: list[dict[str, str]], **options: bool) -> str:
    """The conversation as the template writes it, on one day for ever.

    Some templates (Llama 3.2) write today's date, and equal inputs would give other tokens tomorrow: other keys of the
    reference table, another model.
    """
    template = ASKS_THE_DAY.sub(lambda call: repr(TEMPLATE_DAY.strftime(call[2])), tokenizer.get_chat_template())
    return tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options)


def _assemble(tokenizer: Any, tokens: Sequence[Sequence[int]], max_length: int) -> Encoded | LeftOut:
    """The prompt up to the longest prefix all share, then each response; the prompt cut from the left to fit."""
    alone, *whole = (_ids(item) for item in tokens)
    shared = min(_common_prefix(alone, item) for item in whole)
    prompt = alone[:shared]
    responses = tuple(_with_end_of_turn(tokenizer, item[shared:]) for item in whole)
    room = max_length - max(len(response) for response in responses)
    if room < min(LEAST_PROMPT_TOKENS, len(prompt)) or not shared:
        return LeftOut.RESPONSE_TOO_LONG if shared else LeftOut.REFUSED_BY_TEMPLATE
    kept = _cut(prompt, room, tokenizer.bos_token_id)
    return Encoded(kept, responses, prompt_tokens_cut=len(prompt) - len(kept))


def _with_end_of_turn(tokenizer: Any, response: Tokens) -> Tokens:
    """The response, with the end-of-sequence token added where the template writes no special token at its end."""
    if any(int(token) in end_of_turn_ids(tokenizer) for token in response[-3:]) or tokenizer.eos_token_id is None:
        return response
    return np.append(response, np.int32(tokenizer.eos_token_id))


def _cut(prompt: Tokens, room: int, bos: int | None) -> Tokens:
    """The prompt's last `room` tokens; a leading beginning-of-sequence token stays where it is."""
    if len(prompt) <= room:
        return prompt
    if bos is not None and prompt[0] == bos and room > 1:
        return np.concatenate([prompt[:1], prompt[len(prompt) - room + 1 :]])
    return prompt[len(prompt) - room :]


def _common_prefix(left: Tokens, right: Tokens) -> int:
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length


def _tokenize(tokenizer: Any, texts: list[str]) -> Sequence[Sequence[int]]:
    # The template has written the beginning-of-sequence token already: adding it again would double it.
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []


def _ids(tokens: Sequence[int]) -> Tokens:
    return np.asarray(tokens, dtype=np.int32)


def _plain(conversation: Conversation) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in conversation]


@lru_cache(maxsize=8)
def _special_ids(tokenizer: Any) -> frozenset[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset({*tokenizer.all_special_ids, *added})


@lru_cache(maxsize=8)
def _special_pattern(tokenizer: Any) -> re.Pattern[str]:
    special = {str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special}
    words = sorted({*special, *tokenizer.all_special_tokens} - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")

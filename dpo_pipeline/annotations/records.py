"""What a record becomes: judgments, a demonstration, or a reason; and the small checks all formats share."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from dpo_pipeline.annotations.reasons import Reason

Turns = tuple[tuple[str, str], ...]
"""A conversation as (role, content) pairs."""

CHOICES = ("a", "b", "tie", "both_bad", "not_rateable", "skipped")
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
}


class Unusable(Exception):  # noqa: N818 (a verdict on a record, not a failure of the program)
    """Raised where a record, listed where a part of one, cannot be used.

    Args:
        reason: Its reason code.
        detail: What was found in this record, as a clause without a full stop.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class Judgment(msgspec.Struct, frozen=True, gc=False):
    """One verdict on two responses, in the words of the `judgments` table; `annotator` is still the platform's id."""

    prompt: Turns
    response_a: str
    response_b: str
    choice: str
    strength: int = 0
    annotator: str | None = None
    votes: int = 1
    dimensions: tuple[tuple[str, float], ...] = ()
    justification: str | None = None
    shown_first: str | None = None
    seconds: float | None = None
    judged_at: datetime | None = None
    guideline_version: str | None = None
    group_id: str | None = None
    sft_allowed: bool = True


class Demonstration(msgspec.Struct, frozen=True, gc=False):
    """One conversation to learn from; its last turn is the assistant's."""

    messages: Turns


Part = Judgment | Demonstration | Unusable


def text_of(record: Mapping[str, Any], name: str) -> str:
    """The text of a field.

    Raises:
        Unusable: If the field is missing or not a text.
    """
    value = record.get(name)
    if type(value) is str:
        return value
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, f"{name} is missing")
    raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind_of(value)}, a text was expected")


def clean(text: str) -> str:
    """The text with line ends as LF and without outer white space; nothing else is touched."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.strip()


def response_of(text: str, name: str) -> str:
    """A response, cleaned.

    Raises:
        Unusable: If nothing is left of it.
    """
    cleaned = clean(text)
    if not cleaned:
        raise Unusable(Reason.EMPTY_RESPONSE, f"{name} is empty")
    return cleaned


def single_prompt(text: str, *, system: str | None = None) -> Turns:
    """The prompt of one user turn, after the system's where there is one.

    Raises:
        Unusable: If nothing is left of the text after cleaning.
    """
    cleaned = clean(text)
    if not cleaned:
        raise Unusable(Reason.PROMPT_MISSING, "the prompt is empty")
    if system is not None and (instruction := clean(system)):
        return (("system", instruction), ("user", cleaned))
    return (("user", cleaned),)


def turns_of(value: Any, name: str, *, role_key: str = "role", content_key: str = "content") -> Turns:
    """A list of messages as turns, roles in our words; the order of roles is not checked here.

    Raises:
        Unusable: If it is no list of messages, a role is unknown, or a content is not a text.
    """
    if type(value) is not list:
        if value is None:
            raise Unusable(Reason.MISSING_FIELD, f"{name} is missing")
        raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind_of(value)}, a list of messages was expected")
    turns = []
    for message in value:
        if not isinstance(message, dict):
            raise Unusable(Reason.WRONG_TYPE, f"{name} holds {kind_of(message)}, a message was expected")
        role, content = message.get(role_key), message.get(content_key)
        known = ROLES.get(role) if type(role) is str else None
        if known is None:
            raise Unusable(Reason.UNKNOWN_ROLE, f"{name} holds a turn of {shown(role)}")
        if type(content) is not str:
            if message.get("tool_calls") or message.get("function_call"):
                raise Unusable(Reason.UNSUPPORTED_CONTENT, f"a turn of {name} calls a tool")
            content = _parts_text(content, f"a turn of {name} ({known})")
        turns.append((known, clean(content)))
    return tuple(turns)


def check_prompt(turns: Turns) -> Turns:
    """The turns, if they are a prompt: system first if at all, then user and assistant in turn, the user last.

    The assistant may open, as in role play and greetings. Chat templates that refuse it (Mistral's, Gemma's) leave the
    pair out of training, booked as `refused_by_template`; the table does not know yet whose template it will meet.

    Raises:
        Unusable: If they are not, or one is empty.
    """
    if len(turns) == 1 and turns[0][0] == "user" and turns[0][1]:
        return turns
    if not turns:
        raise Unusable(Reason.PROMPT_MISSING, "there is no turn before the response")
    _check_turns(turns, last="user")
    return turns


def check_conversation(turns: Turns) -> Turns:
    """The turns, if they are a demonstration: like a prompt with the assistant's reply after it.

    Raises:
        Unusable: If they are not, or one is empty.
    """
    if not turns:
        raise Unusable(Reason.MISSING_FIELD, "the conversation has no turns")
    if turns[-1][0] == "assistant" and not turns[-1][1]:
        raise Unusable(Reason.EMPTY_RESPONSE, "the last turn is empty")
    _check_turns(turns, last="assistant")
    if not any(role == "user" for role, _ in turns):
        raise Unusable(Reason.ROLE_ORDER, "no turn is the user's")
    return turns


def _check_turns(turns: Turns, *, last: str) -> None:
    expected = None
    for place, (role, content) in enumerate(turns, start=1):
        if role == "system" and place == 1:
            if not content:
                raise Unusable(Reason.EMPTY_TURN, "turn 1 (system) is empty")
            continue
        if role == "system":
            raise Unusable(Reason.ROLE_ORDER, f"turn {place} is the system's, which may only be the first")
        if role != (expected or role):
            raise Unusable(Reason.ROLE_ORDER, f"turn {place} is the {role}'s, the {expected}'s was expected")
        if not content:
            raise Unusable(Reason.EMPTY_TURN, f"turn {place} ({role}) is empty")
        expected = "assistant" if role == "user" else "user"
    if turns[-1][0] != last:
        raise Unusable(Reason.ROLE_ORDER, f"the last turn is the {turns[-1][0]}'s, the {last}'s was expected")


def _parts_text(content: Any, place: str) -> str:
    """The text of a content given as a list of parts, the way multi-modal chat formats write it."""
    if isinstance(content, list):
        texts = []
        for part in content:
            is_text = isinstance(part, dict) and part.get("type", "text") == "text" and type(part.get("text")) is str
            if not is_text:
                raise Unusable(Reason.UNSUPPORTED_CONTENT, f"{place} holds a part that is not text")
            texts.append(part["text"])
        return "".join(texts)
    if content is None:
        raise Unusable(Reason.MISSING_FIELD, f"{place} has no content")
    raise Unusable(Reason.WRONG_TYPE, f"{place} is {kind_of(content)}, a text was expected")


def kind_of(value: Any) -> str:
    """A JSON value's kind, for people."""
    if value is None:
        return "null"
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")


def shown(value: Any, *, limit: int = 60) -> str:
    """A value as it may stand in a detail: quoted, short, control characters escaped."""
    if not isinstance(value, str | int | float):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."

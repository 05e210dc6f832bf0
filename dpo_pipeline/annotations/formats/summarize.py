"""OpenAI's summarize_from_feedback comparisons: a post or an article, two summaries, one labeller's choice.

https://huggingface.co/datasets/openai/summarize_from_feedback. The prompt is written the way the authors asked their
models (https://github.com/openai/summarize-from-feedback): subreddit, title, post, and an open "TL;DR:".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.annotations.formats.shared import judged, share_with
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.records import Part, Unusable, kind_of, shown, text_of
from dpo_pipeline.annotations.rules import Rules

NAME = "summarize_from_feedback"


def recognise(sample: Sequence[Mapping[str, Any]]) -> float:
    """How sure it is that these records are of this format, 0..1."""
    return share_with(sample, "info", "summaries", "choice")


def parse(record: Mapping[str, Any], rules: Rules) -> Sequence[Part]:
    """One judgment per record."""
    summaries, choice = record.get("summaries"), record.get("choice")
    if not isinstance(summaries, list) or not all(isinstance(one, dict) for one in summaries):
        raise Unusable(Reason.WRONG_TYPE, f"summaries is {kind_of(summaries)}, a list of objects was expected")
    if len(summaries) != 2:
        reason = Reason.TOO_FEW_RESPONSES if len(summaries) < 2 else Reason.TOO_MANY_RESPONSES
        raise Unusable(reason, f"{len(summaries)} summaries, two were expected")
    if type(choice) is not int or choice not in (0, 1):
        raise Unusable(Reason.UNKNOWN_VERDICT, f"the choice is {shown(choice)}, 0 or 1 was expected")
    texts = {f"summary {place}": text_of(one, "text") for place, one in enumerate(summaries, 1)}
    prompt, verdict = (("user", _question(record.get("info"))),), (("a", -2), ("b", 2))[choice]
    who = rules.annotator(record.get("worker"))
    return (judged(prompt, texts, ("summary 1", "summary 2"), verdict, rules, annotator=who),)


def _question(info: Any) -> str:
    if not isinstance(info, dict):
        raise Unusable(Reason.WRONG_TYPE, f"info is {kind_of(info)}, an object was expected")
    texts = {name: value.strip() for name, value in info.items() if isinstance(value, str) and value.strip()}
    post, article = texts.get("post"), texts.get("article")
    if post is None and article is None:
        raise Unusable(Reason.PROMPT_MISSING, "info holds neither a post nor an article")
    lines = [f"SUBREDDIT: r/{texts['subreddit']}"] if "subreddit" in texts and post else []
    lines += [f"TITLE: {texts['title']}"] if "title" in texts else []
    return "\n\n".join([*lines, f"POST: {post}" if post else f"Article: {article}", "TL;DR:"])

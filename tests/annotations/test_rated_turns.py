"""Ratings as strengths whatever binary arithmetic adds to them; turns of a dialogue after one that is not usable."""

import json

import numpy as np
import pytest

from dpo_pipeline.annotations.formats.kway import pairs_by_rating

PROMPT = (("user", "Which?"),)


@pytest.mark.parametrize("step", [1.0, 0.5, 0.1, 0.2])
def test_a_difference_of_whole_steps_has_that_strength_wherever_on_the_scale(step):
    for tenths in range(1, 60):
        low = tenths * step / 10
        found = [
            pairs_by_rating(PROMPT, ["x", "y"], [low, low + whole * step], group="g", step=step)[0].strength
            for whole in (1, 2, 3)
        ]
        assert found == [1, 2, 3], low


def test_a_third_as_a_32_bit_float_is_one_step(read):
    """webgpt_comparisons as Parquet holds float32 scores: three times a third of those is more than 1."""
    third = float(np.float32(1 / 3))
    record = {"question": {"full_text": "Which?"}, "answer_0": "One.", "answer_1": "Other."}
    scores = [(third, -third), (-third, third), (float(np.float32(2 / 3)), -float(np.float32(2 / 3)))]
    lines = [{**record, "score_0": one, "score_1": other} for one, other in scores]
    result = read({"comparisons.jsonl": "\n".join(map(json.dumps, lines))})
    assert [row["strength"] for row in result.judgments] == [-1, 1, -2]


def dialogue(*turns):
    """Turns of a PRISM dialogue: what was asked, and the replies as (text, score, whether chosen)."""
    history = []
    for number, (asked, replies) in enumerate(turns):
        history.append({"turn": number, "role": "user", "content": asked})
        history += [
            {"turn": number, "role": "model", "content": text, "score": score, "if_chosen": chosen}
            for text, score, chosen in replies
        ]
    return json.dumps({"conversation_id": "c1", "user_id": "u1", "conversation_history": history})


LATER = ("And then?", [("Wait.", 90, True), ("Go.", 10, False)])


def test_a_turn_without_a_score_still_stands_before_the_next(read):
    first = ("What first?", [("Stop.", None, True), ("Run.", 20, False)])
    result = read({"conversations.jsonl": dialogue(first, LATER)})
    [judgment] = result.judgments
    assert [turn["content"] for turn in judgment["prompt"]] == ["What first?", "Stop.", "And then?"]
    assert [row["reason"] for row in result.rejected] == ["unknown_verdict"]


def test_after_a_turn_that_cannot_be_told_no_later_one_is_used(read):
    """Judging the third turn as if it were the second would put a prompt into the table that nobody saw."""
    first = ("What first?", [("Stop.", 80, True), ("Run.", 20, False)])
    empty = ("", [("Eh?", 50, True), ("Hm.", 40, False)])
    result = read({"conversations.jsonl": dialogue(first, empty, LATER)})
    assert [row["prompt"][-1]["content"] for row in result.judgments] == ["What first?"]
    assert [row["reason"] for row in result.rejected] == ["empty_turn", "prompt_missing"]

"""Figures of text, the rubric, and judging blind in both orders."""

import pytest

from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.evaluation.generations import generation_figures, shown_prompts
from dpo_pipeline.evaluation.judges import (
    Comparison,
    Verdict,
    human_agreement,
    judge_agreement,
    judge_both_orders,
    summarize_wins,
)
from dpo_pipeline.evaluation.replies import Reply, is_empty, is_refusal, repetition, words_of
from dpo_pipeline.evaluation.rubric import RubricJudge, check_reply, passes
from dpo_pipeline.evaluation.settings import Rubric

TONE = Rubric(name="tone", max_words=5, required={"thanks": ["thank"]}, forbidden={"shouting": ["!!"]})


def comparison(first, second):
    return Comparison((("user", "Where is #ELM-12?"),), first, second)


class Scripted:
    """A judge with a fixed answer per reply shown first; records what it saw."""

    name = "scripted"

    def __init__(self, answers):
        self.answers, self.seen = answers, []

    def compare(self, comparisons):
        self.seen += comparisons
        return [self.answers[each.first] for each in comparisons]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot assist with this request.", True),
        ("As an AI language model, I do not shop.", True),
        ("I am sorry that your kettle is late. I have sent a new one.", False),
        ("I can't wait to see it arrive!", False),
        ("", False),
    ],
)
def test_refusals(text, refused):
    assert is_refusal(text) is refused


def test_repetition_of_a_loop_is_near_one():
    assert repetition("no no no no no no no no no no no no") == pytest.approx(8 / 9)
    assert repetition("four words only here") == 0.0
    assert repetition("") == 0.0


def test_words_and_empty():
    assert is_empty("?! ...")
    assert words_of("Naïve café-goers don’t") == ["naïve", "café-goers", "don’t"]


def test_generation_figures_of_three_replies():
    replies = [
        Reply("1", "dpo", "greedy", "Thank you", 2, is_finished=True),
        Reply("2", "dpo", "greedy", "", 0, is_finished=True),
        Reply("3", "dpo", "greedy", "a b c d a b c d", 8, is_finished=False),
    ]
    met = [check_reply(TONE, question="", reply=reply.text) for reply in replies]
    found = generation_figures(replies, met, ["1", "2", "3"], seed=1, samples=100)
    assert found["words"]["value"] == pytest.approx(10 / 3, rel=1e-5)
    assert found["empty"]["value"] == pytest.approx(1 / 3, rel=1e-5)
    assert found["finished"]["value"] == pytest.approx(2 / 3, rel=1e-5)
    assert found["passed"]["value"] == pytest.approx(1 / 3, rel=1e-5)
    assert found["rules"]["thanks"]["value"] == pytest.approx(1 / 3, rel=1e-5)
    assert found["different_replies"] == 3


def test_rubric_rules_one_by_one():
    assert check_reply(TONE, question="", reply="Thank you!!") == {
        "says something": True,
        "at most 5 words": True,
        "thanks": True,
        "shouting": False,
    }
    assert passes(check_reply(TONE, question="", reply="thank you"))
    assert not passes(check_reply(TONE, question="", reply=""))


def test_a_fact_must_be_echoed_only_where_the_question_has_one():
    rubric = Rubric(name="facts", echoed={"order": r"#[a-z]+-\d\d"})
    assert check_reply(rubric, question="Where is #ELM-12?", reply="#elm-12 is on its way")["order"]
    assert not check_reply(rubric, question="Where is #ELM-12?", reply="#OAK-12 is on its way")["order"]
    assert check_reply(rubric, question="Hello", reply="Hello")["order"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "x"}, "has no rule"),
        ({"name": "x", "required": {"a": ["("]}}, "not a regular expression"),
        ({"name": "x", "echoed": {"a": "["}}, "not a regular expression"),
        ({"name": "x", "required": {"a": ["b"]}, "forbidden": {"a": ["c"]}}, "names a twice"),
    ],
)
def test_a_rubric_that_cannot_work_is_refused(values, words):
    with pytest.raises(SettingsError, match=words):
        Rubric.parse(values, where="test")


def test_the_rubric_judge_counts_rules_and_is_blind_to_order():
    judge = RubricJudge(TONE)
    better, worse = "Thank you", "Go away!!"
    judged = judge_both_orders(
        judge, [comparison(worse, better), comparison(better, worse), comparison(better, better)]
    )
    assert judged.verdicts == (Verdict.SECOND, Verdict.FIRST, Verdict.TIE)
    assert judged.flips == 0


def test_every_comparison_is_asked_in_both_orders():
    judge = Scripted({"x": Verdict.FIRST, "y": Verdict.SECOND})
    judged = judge_both_orders(judge, [comparison("x", "y")])
    assert [(each.first, each.second) for each in judge.seen] == [("x", "y"), ("y", "x")]
    assert judged.verdicts == (Verdict.FIRST,)


def test_a_judge_that_always_prefers_the_first_gives_ties_and_is_found_out():
    judge = Scripted({"x": Verdict.FIRST, "y": Verdict.FIRST})
    judged = judge_both_orders(judge, [comparison("x", "y")])
    assert judged.verdicts == (Verdict.TIE,)
    assert judged.flips == 1


@pytest.mark.parametrize(
    ("one", "other", "settled"),
    [
        (None, Verdict.FIRST, None),
        (Verdict.TIE, Verdict.FIRST, Verdict.SECOND),
        (Verdict.FIRST, Verdict.TIE, Verdict.FIRST),
        (Verdict.TIE, Verdict.TIE, Verdict.TIE),
    ],
)
def test_settling_two_answers(one, other, settled):
    assert judge_both_orders(Scripted({"x": one, "y": other}), [comparison("x", "y")]).verdicts == (settled,)


def test_win_rate_counts_a_tie_as_half():
    """2 won, 1 tied, 1 lost, 1 unanswered: 2.5 of 4."""
    verdicts = [Verdict.SECOND, Verdict.SECOND, Verdict.TIE, Verdict.FIRST, None]
    found = summarize_wins(verdicts, [0, 0, 0, 0, 0], clusters=["a", "b", "c", "d", "e"], seed=1, samples=200)
    assert (found["wins"], found["ties"], found["losses"], found["unanswered"]) == (2, 1, 1, 1)
    assert found["win_rate"]["value"] == 0.625


def test_win_rate_of_a_judge_that_never_answers_is_missing():
    found = summarize_wins([None, None], [0, 0], clusters=["a", "b"], seed=1, samples=200)
    assert found["win_rate"]["value"] is None
    assert found["length_controlled_win_rate"]["value"] is None


def test_agreement_with_people_leaves_ties_out():
    """Shown (chosen, rejected): right twice, wrong once, one tie."""
    found = human_agreement([Verdict.FIRST, Verdict.FIRST, Verdict.SECOND, Verdict.TIE, None])
    assert found["agreement"]["value"] == pytest.approx(2 / 3, rel=1e-5)
    assert (found["ties"], found["unanswered"]) == (1, 1)


def test_agreement_between_judges_on_what_both_answered():
    found = judge_agreement(
        {
            "b": [Verdict.FIRST, Verdict.SECOND, None],
            "a": [Verdict.FIRST, Verdict.FIRST, Verdict.TIE],
        },
        seed=1,
        samples=100,
    )
    assert found[0]["judges"] == ["a", "b"]
    assert found[0]["agreement"]["value"] == 0.5


def test_the_browser_shows_losses_and_ties_too():
    prompts = [{"prompt_id": str(at)} for at in range(30)]
    outcomes = {str(at): "win" if at < 26 else "loss" for at in range(28)} | {"28": "tie", "29": "tie"}
    shown = [outcomes[row["prompt_id"]] for row in shown_prompts(prompts, outcomes, count=9)]
    assert shown == ["loss"] * 2 + ["tie"] * 2 + ["win"] * 5
    assert len(shown_prompts(prompts[:3], {}, count=9)) == 3

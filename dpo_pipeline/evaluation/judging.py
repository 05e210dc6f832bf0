"""The configured judges at work: the challenger's replies against another model's, and against what people chose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation.held_out import HeldOut, Row
from dpo_pipeline.evaluation.judges import (
    POINTS,
    Comparison,
    Judge,
    Judged,
    Verdict,
    human_agreement,
    judge_both_orders,
    summarize_wins,
    word_difference,
)
from dpo_pipeline.evaluation.language_model_judge import LanguageModelJudge
from dpo_pipeline.evaluation.reward_judge import RewardJudge
from dpo_pipeline.evaluation.rubric import RubricJudge
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.statistics import wilson
from dpo_pipeline.evaluation.witness import Statement

MAX_HUMAN_PAIRS = 400
"""Held-out pairs a judge is checked against; by pair_id, so the choice is stable."""


@dataclass(frozen=True, slots=True)
class JudgeResult:
    """What one judge said of the challenger against one opponent, and of pairs people judged.

    Attributes:
        judge: The judge's name.
        opponent: The model the challenger's replies were compared with.
        prompt_ids: The prompts compared, in order.
        clusters: Their prompt clusters, in the same order.
        comparisons: What was shown; `first` is the opponent's reply, `second` the challenger's.
        judged: The verdicts, in the same order.
        against_people: Verdicts on (chosen, rejected) of held-out pairs; None where the judge was not asked.
    """

    judge: str
    opponent: str
    prompt_ids: tuple[str, ...]
    clusters: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    judged: Judged
    against_people: Judged | None

    @property
    def points(self) -> dict[str, float]:
        """1 for a win of the challenger, 0.5 for a tie, 0 for a loss, by prompt_id; unanswered ones are absent."""
        return {
            prompt_id: POINTS[verdict]
            for prompt_id, verdict in zip(self.prompt_ids, self.judged.verdicts, strict=True)
            if verdict is not None
        }

    def as_dict(self, *, seed: int, samples: int) -> dict[str, Any]:
        """Plain values: win rates, order bias, agreement with people."""
        gaps = [word_difference(each) for each in self.comparisons]
        people = self.against_people
        return {
            "judge": self.judge,
            "opponent": self.opponent,
            "compared": len(self.comparisons),
            "order_flips": self.judged.flips,
            "order_flip_share": wilson(self.judged.flips, len(self.comparisons)).as_dict(),
            **summarize_wins(self.judged.verdicts, gaps, clusters=self.clusters, seed=seed, samples=samples),
            "people": None if people is None else human_agreement(people.verdicts),
            "by_length": _by_length(self.judged.verdicts, gaps),
        }


def make_judges(
    settings: EvaluationSettings, *, work: Path, device: str, reporter: Reporter, known: Mapping[str, Verdict]
) -> list[Judge]:
    """The judges the settings name, the rubric first.

    Args:
        settings: Which judges.
        work: Folder where verdicts that cost money are kept between attempts.
        device: A torch device name, for judges that are models.
        reporter: Hears of trouble with a judge.
        known: Verdicts of earlier evaluations that cost money, by the digest of the question.
    """
    judges: list[Judge] = []
    if settings.rubric is not None:
        judges.append(RubricJudge(settings.rubric))
    if settings.reward_judge is not None:
        judges.append(RewardJudge(settings.reward_judge, device=device))
    if settings.language_model_judge is not None:
        asked = settings.language_model_judge
        judges.append(LanguageModelJudge(asked, cache=work / "verdicts", known=known, reporter=reporter))
    return judges


def run_judges(
    judges: Sequence[Judge],
    held_out: HeldOut,
    *,
    challenger: Statement,
    opponents: Sequence[Statement],
    decoding: str,
    reporter: Reporter,
) -> list[JudgeResult]:
    """Each judge on the challenger's replies of one decoding against each opponent's, blind and in both orders."""
    results = []
    for judge in judges:
        people = _ask_about_people(judge, held_out.pairs)
        for opponent in opponents:
            if not (challenger.replies.get(decoding) and opponent.replies.get(decoding)):
                continue
            reporter.say(f"{judge.name}: {challenger.name} against {opponent.name}")
            comparisons = tuple(
                comparison_of(row, theirs.text, own.text)
                for row, theirs, own in zip(
                    held_out.prompts, opponent.replies[decoding], challenger.replies[decoding], strict=True
                )
            )
            judged = judge_both_orders(judge, comparisons)
            ids, clusters = (tuple(row[name] for row in held_out.prompts) for name in ("prompt_id", "cluster_id"))
            results.append(JudgeResult(judge.name, opponent.name, ids, clusters, comparisons, judged, people))
    return results


def paid_verdicts(judges: Sequence[Judge]) -> dict[str, Verdict]:
    """The verdicts that cost money, by the digest of the question, known ones included."""
    return {
        key: verdict for judge in judges if isinstance(judge, LanguageModelJudge) for key, verdict in judge.used.items()
    }


def _ask_about_people(judge: Judge, pairs: Sequence[Row]) -> Judged | None:
    asked = [comparison_of(row, row["chosen"], row["rejected"]) for row in pairs[:MAX_HUMAN_PAIRS]]
    return judge_both_orders(judge, asked) if asked else None


def comparison_of(row: Row, first: str, second: str) -> Comparison:
    """Two replies to the prompt of a row, as a judge sees them."""
    return Comparison(tuple((turn["role"], turn["content"]) for turn in row["prompt"]), first, second)


def _by_length(verdicts: Sequence[Verdict | None], gaps: Sequence[float]) -> Mapping[str, list[int]]:
    """Words the challenger's reply is longer by, per outcome, sorted: shows whether length alone wins."""
    names = {Verdict.SECOND: "win", Verdict.TIE: "tie", Verdict.FIRST: "loss"}
    found: dict[str, list[int]] = {"win": [], "tie": [], "loss": []}
    for verdict, gap in zip(verdicts, gaps, strict=True):
        if verdict is not None:
            found[names[verdict]].append(int(gap))
    return {name: sorted(values) for name, values in found.items()}

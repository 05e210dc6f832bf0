"""Why a pair, or a judgment, is not trained on. Cleaning rules that drop use their own names."""

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of `excluded_pairs` and of the books, each with its sentence."""

    sentence: str

    def __new__(cls, code: str, sentence: str) -> "Reason":
        """A code that carries its sentence."""
        reason = str.__new__(cls, code)
        reason._value_ = code
        reason.sentence = sentence
        return reason

    NO_VERDICT = "no_verdict", "Every judgment of the pair was skipped or called not rateable."
    FEW_JUDGMENTS = "few_judgments", "The pair has fewer judgments than the settings ask for."
    BOTH_BAD = "both_bad", "More than half of the votes call both responses bad."
    TIE = "tie", "The judgments add up to a tie."
    CONTRADICTION = "contradiction", "The judgments contradict each other: neither response is probably better."
    NEAR_DUPLICATE = "near_duplicate", "Prompt and both responses nearly equal those of another pair, which is kept."
    SPLIT_CONFLICT = (
        "split_conflict",
        "The prompt resembles prompts on both sides of the train / held-out split, or, in a crowd, one on the other.",
    )
    SKIPPED = "skipped", "The annotator skipped the pair; judgments only."
    NOT_RATEABLE = "not_rateable", "The annotator called the pair not rateable; judgments only."

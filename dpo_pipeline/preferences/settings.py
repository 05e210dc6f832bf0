"""Settings of the preference tables."""

from typing import Literal, Self

from pydantic import Field, model_validator

from dpo_pipeline.core.settings import Settings
from dpo_pipeline.preferences.pinned import BenchmarkFile, GoldenSet, HubFile, PinnedFile, PinnedFolder

Action = Literal["off", "flag", "drop"]
"""What a cleaning rule does: nothing, name itself in the pair's flags, or keep the pair out of training."""

PersonalDataAction = Literal["off", "flag", "drop", "redact"]
"""As `Action`; `redact` also puts a placeholder such as [EMAIL] in place of what was found."""


class RuleActions(Settings):
    """One action per cleaning rule; `preferences/cleaning.py` has the predicates under the same names."""

    prompt_missing: Action = "drop"
    """The prompt has no user turn with any text."""

    empty_response: Action = "drop"
    """A response is empty but for white space."""

    identical_responses: Action = "drop"
    """Both responses are the same after normalisation."""

    truncated_response: Action = "flag"
    """One response is the beginning of the other: often the same answer, cut off."""

    encoding_damage: Action = "drop"
    """A response shows mojibake or the replacement character U+FFFD."""

    template_artefact: Action = "drop"
    """A response contains tokens of a chat template or plays the other side of the dialogue."""

    refusal_only: Action = "flag"
    """Both responses do nothing but refuse."""

    length_ratio: Action = "flag"
    """One response is more than `max_length_ratio` times as long as the other."""

    too_long: Action = "flag"
    """Prompt and longer response together exceed `max_tokens`."""

    benchmark_overlap: Action = "drop"
    """The prompt overlaps with an item of `benchmarks`; the pair is then on neither side of the split."""

    script_mismatch: Action = "flag"
    """A response is mostly in another writing system than the prompt."""

    unexpected_language: Action = "flag"
    """Prompt or response is in a language that is not among `languages`; short and uncertain texts are let pass."""

    email: PersonalDataAction = "flag"
    """An e-mail address occurs."""

    phone: PersonalDataAction = "flag"
    """A telephone number occurs."""

    payment_card: PersonalDataAction = "flag"
    """A payment card number with a valid Luhn checksum occurs."""

    toxic_pattern: Action = "flag"
    """One of `toxic_patterns` occurs in a response."""

    toxicity: Action = "flag"
    """A response reaches the threshold of the scorer under `toxicity`."""


class TextScorer(Settings):
    """What gives a response a score from 0 to 1: a function of one's own, or a classifier in a folder."""

    function: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """`package.module:function`, which takes a list of texts and returns as many numbers from 0 to 1."""

    version: str = ""
    """The function's version, in its author's words; raise it when its scores change, and tables are built anew."""

    model: PinnedFolder | None = None
    """A text-classification model in Hugging Face layout, safetensors only, run on the CPU."""

    labels: tuple[str, ...] = ("toxic",)
    """The model's labels that count; their probabilities are added where labels exclude each other."""

    threshold: float = Field(default=0.5, gt=0, le=1)
    """Least score that is found."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.function is None) == (self.model is None):
            message = "give either function or model"
            raise ValueError(message)
        if self.function is not None and not self.version:
            message = "give the function's version: without it a change of the function would go unnoticed"
            raise ValueError(message)
        return self


class PreferenceSettings(Settings):
    """How judgments become pairs, and which pairs are trained on."""

    consensus: Literal["majority", "strength", "dawid_skene", "bradley_terry"] = "dawid_skene"
    """How votes are added up: count them, sum their strengths, weigh annotators by estimated reliability, or fit one
    score per response to all judgments of its prompt (for rankings of K responses)."""

    min_p_chosen: float = Field(default=0.6, gt=0.5, le=1)
    """Least probability that the chosen response is the better one; below it the pair is a contradiction."""

    min_p_chosen_when_split: float = Field(default=0.8, gt=0.5, le=1)
    """The same where no more votes stand for the chosen response than against it: only who voted then decides."""

    min_judgments: int = Field(default=1, ge=1)
    """Fewest judgments a pair needs, an annotator's repeated verdict counted once."""

    near_duplicate_jaccard: float = Field(default=0.6, gt=0, le=1)
    """Similarity of word 2-grams that two pairs must have as a whole, prompt and responses taken together, to count as
    the same. A few edits change much of a short text: asking 0.5 of every part instead finds 96 % of the pairs with
    5 % of their words edited, these two settings 99 %."""

    near_duplicate_part_jaccard: float = Field(default=0.4, gt=0, le=1)
    """Similarity that prompt and responses must each have besides. Below 0.4 it would take answers for one another that
    say the opposite: "Yes, I agree." and "No, I agree." have 1/3."""

    prompt_cluster_jaccard: float = Field(default=0.5, gt=0, le=1)
    """Similarity of word 2-grams from which two prompts must stand on the same side of the split."""

    held_out_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of prompt clusters held out for evaluation."""

    split_salt: str = "dpo-pipeline/1"
    """Salt of the split's hash; never change it once a model has been trained."""

    demonstrated_earlier: Literal["train", "draw"] = "train"
    """Where a new prompt stands that is, or is like, a demonstration of an earlier drop, which may have been learned:
    with what is trained on, or where its draw puts it (then SFT leaves the demonstration out from that drop on, but a
    model that was trained before has learned it). Choose `draw`, before a model is trained, where demonstrations cover
    nearly all prompts and too few would be held out."""

    rules: RuleActions = RuleActions()
    """What each cleaning rule does with the pairs it finds."""

    max_length_ratio: float = Field(default=10.0, gt=1)
    """Longest allowed ratio of the two responses' lengths in characters, for the rule `length_ratio`."""

    max_tokens: int = Field(default=6_000, ge=25)
    """Longest allowed prompt plus longer response in tokens, for the rule `too_long`; no template is counted."""

    tokenizer: PinnedFile | HubFile | None = None
    """The `tokenizer.json` that counts them: a file, `{hub: owner/name@commit}`, or in a profile the word `model` for
    that of `model.hub`; absent: four characters per token. One that is not byte-level has to count every text."""

    golden_set: GoldenSet | None = None
    """Pairs every model is evaluated on and none is trained on, nor on anything that resembles their prompts."""

    benchmarks: tuple[BenchmarkFile, ...] = ()
    """What models will be tested on: prompts that overlap are found by the rule `benchmark_overlap`."""

    languages: tuple[str, ...] = ()
    """Languages that are expected, as ISO 639 codes (`en`, `de`), for the rule `unexpected_language`; none: it finds
    nothing and costs nothing, else about 80 CPU seconds per million distinct texts."""

    language_certainty: float = Field(default=0.9, gt=0.5, lt=1)
    """How much likelier another language must be than the expected ones together."""

    toxic_patterns: tuple[str, ...] = ()
    """RE2 patterns searched in lower-cased responses, for the rule `toxic_pattern`; none are shipped."""

    toxicity: TextScorer | None = None
    """Scores responses for the rule `toxicity`; none is shipped."""

    reading_words_per_minute: float = Field(default=1_000.0, gt=0)
    """Reading speed above which a judgment counts as too fast to have been read, in the annotator report."""

    careless_agreement: float = Field(default=0.65, gt=0, lt=1)
    """An annotator whose agreement with the others lies below this share with 99 % confidence is suspected careless."""

    few_judgments: int = Field(default=20, ge=1)
    """Fewer comparable judgments than this and the annotator report draws no conclusion."""

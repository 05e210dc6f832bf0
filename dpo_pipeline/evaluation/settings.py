"""Settings of the evaluation and of the gate that reads it."""

import re
from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from dpo_pipeline.core.settings import Settings


class Rubric(Settings):
    """Rules a reply can be checked against without a model; the demo's brand guidelines are one."""

    name: str
    """Name shown in the report."""

    passed: str = "on-brand"
    """What a reply that meets every rule is called in the report."""

    max_words: int | None = Field(default=None, ge=1)
    """Longest reply that counts as concise, in words."""

    min_words: int = Field(default=1, ge=0)
    """Shortest reply that counts as an answer, in words."""

    required: dict[str, list[str]] = Field(default_factory=dict)
    """Per requirement, regular expressions of which at least one must match (case ignored)."""

    forbidden: dict[str, list[str]] = Field(default_factory=dict)
    """Per prohibition, regular expressions of which none may match (case ignored)."""

    echoed: dict[str, str] = Field(default_factory=dict)
    """Per fact, a regular expression; what it matches in the last user turn must stand in the reply (case ignored)."""

    @field_validator("required", "forbidden")
    @classmethod
    def _patterns_compile(cls, rules: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, patterns in rules.items():
            _check(name, patterns)
        return rules

    @field_validator("echoed")
    @classmethod
    def _facts_compile(cls, rules: dict[str, str]) -> dict[str, str]:
        for name, pattern in rules.items():
            _check(name, [pattern])
        return rules

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        names = [*self.required, *self.forbidden, *self.echoed]
        if not names and self.max_words is None:
            message = f"the rubric {self.name!r} has no rule: give max_words, required, forbidden or echoed"
            raise ValueError(message)
        if doubled := sorted({name for name in names if names.count(name) > 1}):
            message = f"the rubric {self.name!r} names {', '.join(doubled)} twice; each rule needs its own name"
            raise ValueError(message)
        return self


class RewardJudgeSettings(Settings):
    """A judge that compares the scores of a sequence classifier with one output, as reward models are."""

    path: str
    """Folder of the classifier in Hugging Face layout (safetensors only)."""

    max_length: int = Field(default=1_024, ge=16)
    """Longest conversation scored, in tokens; longer ones are cut from the left."""

    batch_size: int = Field(default=16, ge=1)
    """Conversations scored at once."""

    tie_margin: float = Field(default=0.0, ge=0)
    """Scores closer than this are a tie."""


class LanguageModelJudgeSettings(Settings):
    """A judge behind an OpenAI-compatible chat endpoint. Replies leave this machine: off unless set."""

    base_url: str
    """Address up to and including the version, such as `http://127.0.0.1:8000/v1`."""

    model: str
    """Name of the judging model at that endpoint."""

    key_variable: str = "DPO_PIPELINE_JUDGE_KEY"
    """Environment variable that holds the key; the key itself never stands in settings, files or logs."""

    guideline: str = "The better reply is more helpful, correct and to the point, and follows the user's request."
    """What better means, told to the judge."""

    attempts: int = Field(default=4, ge=1, le=20)
    """Tries per question before it counts as unanswered."""

    timeout_seconds: float = Field(default=60.0, gt=0)
    """Longest wait for one answer, in seconds."""

    requests_per_minute: float = Field(default=60.0, gt=0)
    """Most requests sent per minute."""

    max_requests: int = Field(default=1_000, ge=1)
    """Budget of one evaluation in requests, retries included; what is left over stays unanswered."""

    max_answer_tokens: int = Field(default=16, ge=1)
    """Longest answer asked for, in tokens."""


class BenchmarkSettings(Settings):
    """Standard benchmarks through lm-evaluation-harness; needs the extra `lm-eval`, and mostly the network."""

    tasks: list[str] = Field(min_length=1)
    """Names of tasks or groups as the harness knows them, such as `ifeval` or `mmlu`."""

    folder: str | None = None
    """Folder with task files of one's own; they may name Python code, which is run."""

    few_shots: int | None = Field(default=None, ge=0)
    """Examples shown before each question; absent: the task's own number."""

    limit: int | None = Field(default=None, ge=1)
    """Most questions of each task; absent: all."""

    chat_template: bool = True
    """Whether questions are put as a user's turn."""


class GateSettings(Settings):
    """When a checkpoint counts as better, and what it must not have broken."""

    least_prompts: int = Field(default=30, ge=2)
    """Held-out prompts (or pairs) below which the verdict is `not enough evidence`."""

    least_gain: float = Field(default=0.0, ge=0, lt=1)
    """Gain of the target figure that the lower end of its 95 % interval must exceed, as a share."""

    accuracy_margin: float = Field(default=0.02, ge=0, lt=1)
    """Most that ranking accuracy may fall, as a share: the paired difference's interval must lie above minus it."""

    perplexity_ratio: float = Field(default=1.5, gt=1)
    """Most that the perplexity on held-out demonstrations may grow, as a factor."""

    kl_per_token: float = Field(default=0.5, gt=0)
    """Most KL divergence from the reference, in nats per token of the sampled replies."""

    unfinished_rise: float = Field(default=0.05, gt=0, le=1)
    """Most that the share of greedy replies cut at the length limit may rise."""

    repetition_rise: float = Field(default=0.1, gt=0, le=1)
    """Most that the share of repeated word 4-grams may rise."""

    diversity_ratio: float = Field(default=0.5, gt=0, lt=1)
    """Least distinct-2 of the sampled replies, as a share of the baseline's."""

    empty_share: float = Field(default=0.02, ge=0, lt=1)
    """Most empty replies, as a share."""

    both_fell_share: float = Field(default=0.5, gt=0, le=1)
    """Share of pairs whose chosen and rejected reply both lost probability, from which the report warns."""


Guard = Literal[
    "empty_replies", "kl_per_token", "cut_replies", "repetition", "distinct_2", "perplexity", "ranking_accuracy"
]


class ChampionSettings(Settings):
    """Who promotes, and what must be true of a report besides; the rule itself stands in `evaluation.gate`."""

    promotion: Literal["auto", "manual"] = "auto"
    """`auto`: a checkpoint that the rule calls better becomes champion; `manual`: it waits for a person's reason."""

    guarded: tuple[Guard, ...] = get_args(Guard)
    """Figures whose break keeps a checkpoint from being promoted, whatever it gains; log-probs always are guarded."""

    near_copy_share: float = Field(default=0.01, ge=0, lt=1)
    """Share of the held-out prompts that may have a near copy among the trained ones before nobody is promoted."""


class SweepSettings(Settings):
    """What a point of a sweep costs beside its training; what is swept is said on the command line."""

    prompts: int = Field(default=100, ge=1)
    """Held-out prompts each point replies to; 100 replies tell a KL divergence of a nat to about a tenth."""

    keep_weights: bool = False
    """Whether a point's weights are kept; one chosen point is cheap to train again, a grid of large models is large."""


class EvaluationSettings(Settings):
    """What the report measures."""

    generation_count: int = Field(default=200, ge=1)
    """Held-out prompts each model replies to."""

    show_base: bool = True
    """Whether the model before SFT is questioned too; one model more to load and to let reply, once per base."""

    demonstration_count: int = Field(default=500, ge=0)
    """Most held-out demonstrations the perplexity is measured on."""

    max_new_tokens: int = Field(default=128, ge=1)
    """Longest reply generated, in tokens."""

    generation_batch_size: int = Field(default=32, ge=1)
    """Prompts answered at once; the lever on the key-value cache's memory."""

    sampling_temperature: float = Field(default=1.0, gt=0)
    """Temperature of the sampled replies; 1 makes the KL estimate unbiased."""

    judged_decoding: Literal["greedy", "sampled"] = "greedy"
    """Which replies the judges and the gate look at; sampled ones show all a model says, not only its favourite."""

    bootstrap_samples: int = Field(default=2_000, ge=100)
    """Resamples behind each 95 % interval."""

    seed: int = 17
    """Seed of resampling and of sampled replies."""

    rubric: Rubric | None = None
    """Rules the replies are judged by; absent: no rubric judge."""

    reward_judge: RewardJudgeSettings | None = None
    """A reward model as judge; absent: none."""

    language_model_judge: LanguageModelJudgeSettings | None = None
    """A language model as judge; absent: none."""

    benchmarks: BenchmarkSettings | None = None
    """Standard benchmarks every trained model of the report takes; absent: none."""

    shown_replies: int = Field(default=24, ge=1)
    """Replies shown side by side in the report."""

    gate: GateSettings = GateSettings()
    """When the challenger counts as better."""


def _check(name: str, patterns: list[str]) -> None:
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            message = f"the pattern {pattern!r} of rule {name!r} is not a regular expression: {error}"
            raise ValueError(message) from error

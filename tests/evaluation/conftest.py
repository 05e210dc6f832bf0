"""A small world on disk and speakers without a model, so that a whole evaluation runs in a second."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dpo_pipeline.annotations.schemas import DEMONSTRATIONS
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Quiet, append_metrics
from dpo_pipeline.core.randomness import seed_for
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.dpo.schemas import REFERENCE_LOGPROBS
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.evaluation import evaluate as stage
from dpo_pipeline.evaluation import hearing
from dpo_pipeline.evaluation.settings import EvaluationSettings, Rubric
from dpo_pipeline.evaluation.witness import Answer, Spoken
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, ScratchModel
from dpo_pipeline.preferences.schemas import PAIRS, SPLITS
from dpo_pipeline.sft.settings import SftSettings

RUBRIC = Rubric(
    name="Guidelines of Müller & Söhne",
    max_words=40,
    required={"acknowledges": [r"\bsorry\b", r"\bthank you\b"], "actionable": [r"\bI have (sent|booked)\b"]},
    forbidden={"tone": [r"!!", r"\bcalm down\b"]},
    echoed={"specific": r"#[a-z]+-\d\d"},
)
GOOD = (
    "Hello {name}, I am sorry that your {thing} is late. I have sent a new one for {order}. You hear from me tomorrow."
)
WORDY = (
    "Hello {name}, I am sorry. I have sent a new one for {order}. " + "We at this company take pride in service. " * 5
)
COLD = "Hello {name}, I have sent a new one for {order}."
RUDE = "Calm down. That is how it is!!"
THINGS = ("kettle", "lamp", "tent", "chair")


@dataclass
class FakeSpeaker:
    """Scores by a hash, a liking for chosen texts, and replies from templates by a skill.

    Attributes:
        name: Goes into the hash.
        skill: Share of good replies and of pairs ranked right.
        shift: Nats by which every log-prob differs from the hash's.
        replies: Replaces the templates where given.
        log_prob: Replaces every log-prob where given.
    """

    name: str
    skill: float = 0.5
    shift: float = 0.0
    replies: Callable[[int, str], str] | None = None
    log_prob: float | None = None
    asked: list[str] = field(default_factory=list)

    def score(self, questions):
        self.asked.append(f"score {len(questions)}")
        return {
            each.key: Answer(
                *(self._value(each.key, text, at) for at, text in enumerate((each.first, each.second))),
                *(len(text.split()) + 1 for text in (each.first, each.second)),
            )
            for each in questions
        }

    def _value(self, key, text, at):
        if self.log_prob is not None:
            return self.log_prob
        key = key[:16]  # what was drawn before identifiers were doubled to their real length
        drawn = seed_for(1, "score", key, text) / 2**63
        likes = seed_for(2, self.name, key) / 2**63 < self.skill
        return -len(text.split()) * (0.4 + 0.05 * drawn) + (3.0 if (at == 0) == likes else -3.0) + self.shift

    def reply(self, prompts, *, temperature, seed):
        self.asked.append(f"reply {len(prompts)} at {temperature:g}")
        texts = [self._reply(at, prompt[-1]["content"], seed) for at, prompt in enumerate(prompts)]
        return [Spoken(text, len(text.split()), is_finished=len(text.split()) < 200) for text in texts]

    def _reply(self, at, question, seed):
        if self.replies is not None:
            return self.replies(at, question)
        drawn = seed_for(seed, self.name, at) / 2**63
        text = GOOD if drawn < self.skill else (WORDY, COLD, RUDE)[at % 3]
        words = question.split()
        return text.format(name=words[-1], order=words[-2], thing=THINGS[at % 4])


@dataclass
class World:
    """Artifact folders of one small scenario."""

    root: Path

    def evaluate(
        self,
        speakers: dict[str, FakeSpeaker],
        monkeypatch: Any,
        *,
        out: str = "out",
        known: Sequence[str] = (),
        **settings,
    ) -> Outcome:
        """Run the stage with speakers in place of checkpoints; its files lie in `root/out`."""

        @contextmanager
        def fake_speaking(voice, **_) -> Iterator[FakeSpeaker]:
            yield speakers[voice.name]

        monkeypatch.setattr(hearing, "speaking", fake_speaking)
        (self.root / out).mkdir()
        values = {"bootstrap_samples": 200, "rubric": RUBRIC, "max_new_tokens": 200, "show_base": "base" in speakers}
        return stage.evaluate(
            self.root / "pairs",
            [self.root / "demonstrations"],
            self.root / "sft",
            self.root / "dpo",
            self.root / "reference",
            self.root / out,
            work=self.root / "work",
            evaluation=EvaluationSettings(**(values | settings)),
            dpo_settings=DpoSettings(),
            model=ModelSettings(scratch=ScratchModel()),
            compute=ComputeSettings(),
            reporter=Quiet(),
            champion=self.root / "champion" if "champion" in speakers else None,
            known=[self.root / name for name in known],
        )

    def report(self, out: str = "out") -> dict[str, Any]:
        """The report.json last written there."""
        return json.loads((self.root / out / "report.json").read_text())

    def page(self, out: str = "out") -> str:
        """The report.html last written there."""
        return (self.root / out / "report.html").read_text()


def _pair(at: int, *, split: str, hostile: str) -> dict[str, Any]:
    chance = np.random.default_rng(at)
    name, order, thing = f"Ann{at}", f"#maple-{at % 90 + 10}", THINGS[at % 4]
    question = f"My {thing} has not come and I wait since week {at}.{hostile} Order {order} {name}"
    chosen = GOOD.format(name=name, order=order, thing=thing)
    rejected = (WORDY, COLD, RUDE)[at % 3].format(name=name, order=order)
    agreement = (1.0, 1.0, 0.8, 0.66)[at % 4]
    return {
        "pair_id": f"{seed_for(3, 'pair', at):016x}" * 2,
        "prompt_id": f"{seed_for(4, 'prompt', at // 2):016x}" * 2,
        "cluster_id": f"{seed_for(4, 'prompt', at // 2):016x}" * 2,
        "split": split,
        "prompt": [{"role": "user", "content": question}],
        "chosen": chosen,
        "rejected": rejected + hostile,
        "p_chosen": 0.6 + 0.3 * float(chance.random()),
        "margin": 1.5,
        "strength": 1.5,
        "agreement": agreement,
        "judgment_count": 3,
        "annotator_count": 3,
        "judgment_ids": [],
        "annotators": [],
        "dimensions": [{"name": ("tone" + hostile, "concise")[at % 2], "strength": 1.0}],
        "sources": [("label_studio", "appen_csv")[at % 2]],
        "drops": [("2026-09-first", "2026-10-second")[at % 3 == 0]],
        "group_id": "g",
        "flags": [],
        "sft_allowed": True,
    }


def _write_rows(folder: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    folder.mkdir(exist_ok=True)
    write_table(folder / name, pa.Table.from_pylist(rows, schema=schema))


def _write_reference(folder: Path, pairs: list[dict[str, Any]]) -> None:
    speaker = FakeSpeaker("sft", skill=0.6)
    rows = []
    for pair in pairs:
        values = {
            f"{side}_logp": speaker._value(pair["pair_id"], pair[side], at)
            for at, side in enumerate(("chosen", "rejected"))
        }
        counts = {f"{side}_tokens": len(pair[side].split()) + 1 for side in ("chosen", "rejected")}
        rows.append({"pair_id": pair["pair_id"], "split": pair["split"], "key": pair["pair_id"], **values, **counts})
    _write_rows(folder, "reference_logprobs.parquet", rows, REFERENCE_LOGPROBS)


@pytest.fixture(autouse=True)
def whole_floats() -> Iterator[None]:
    """Choosing a CPU flushes denormals for the whole process; hypothesis refuses to draw floats after that."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def make_world(tmp_path: Path) -> Callable[..., World]:
    """Make a world of so many held-out pairs, two to a prompt; `hostile` stands in prompts, replies and labels."""

    def make(*, pair_count: int = 120, hostile: str = "") -> World:
        held_out = [_pair(at, split="held_out", hostile=hostile) for at in range(pair_count)]
        train = [_pair(at, split="train", hostile="") for at in range(1000, 1010)]
        _write_rows(tmp_path / "pairs", "pairs.parquet", [*held_out, *train], PAIRS)
        plain = {"first_drop": "a", "is_apart": False, "is_like_demonstration": False}
        splits = [
            {name: row[name] for name in ("prompt_id", "cluster_id", "split")} | plain for row in [*held_out, *train]
        ]
        _write_rows(tmp_path / "pairs", "splits.parquet", splits, SPLITS)
        _write_reference(tmp_path / "reference", [*held_out, *train])
        _write_rows(tmp_path / "demonstrations", "demonstrations.parquet", _demonstrations(), DEMONSTRATIONS)
        model = ModelSettings(scratch=ScratchModel()).model_dump(mode="json")
        settings = {"sft": SftSettings(held_out_share=0.3).model_dump(mode="json"), "model": model}
        for name in ("sft", "dpo", "champion"):
            (tmp_path / name / "model").mkdir(parents=True)
            (tmp_path / name / "model" / "weights").write_text(name)
            training = {"stage": name, "settings": settings, "counts": {"steps": 40, "tokens": 12345}, "facts": {}}
            (tmp_path / name / "training.json").write_text(json.dumps(training))
            for step in range(1, 41):
                values = {"loss": 0.69 * math.exp(-step / 30), "rewards/margin": step / 20, "grad_norm": 1.0}
                append_metrics(tmp_path / name / "metrics.jsonl", step, values)
        return World(tmp_path)

    return make


def _demonstrations() -> list[dict[str, Any]]:
    return [
        {
            "demonstration_id": f"{at:032x}",
            "drop": "a",
            "source": "messages_jsonl",
            "file": "f.jsonl",
            "file_sha256": "0" * 64,
            "record_number": at + 1,
            "messages": [
                {"role": "user", "content": f"Question number {at}"},
                {"role": "assistant", "content": f"The answer is {at}, and I am glad to help"},
            ],
        }
        for at in range(60)
    ]


@pytest.fixture
def speakers() -> dict[str, FakeSpeaker]:
    """An SFT model and a clearly better DPO model."""
    return {"sft": FakeSpeaker("sft", skill=0.45), "dpo": FakeSpeaker("dpo", skill=0.95)}


@pytest.fixture
def fake_speaker() -> type[FakeSpeaker]:
    """The class of small speakers, for tests that need another one."""
    return FakeSpeaker

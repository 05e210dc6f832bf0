"""The real speaker on a model of a few thousand parameters, and the whole stage on two such checkpoints."""

import math

import pytest

from dpo_pipeline.core.metrics import Quiet
from dpo_pipeline.evaluation import evaluate as stage
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.speakers import speaking
from dpo_pipeline.evaluation.voices import Voice
from dpo_pipeline.evaluation.witness import Question
from dpo_pipeline.modeling.base import open_base
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.policy import save_policy
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings, ScratchModel

MODEL = ModelSettings(
    scratch=ScratchModel(vocabulary_size=320, hidden_size=16, intermediate_size=16, layer_count=1, head_count=2),
    chat_template="chatml",
    max_length=128,
)
COMPUTE = ComputeSettings(device="cpu", threads=1)
SETTINGS = EvaluationSettings(max_new_tokens=5, bootstrap_samples=100)
PROMPT = [{"role": "user", "content": "Where is my lamp?"}]


@pytest.fixture
def make_checkpoint():
    """Save a fresh random model of a seed into `folder/model`."""

    def make(folder, seed=17):
        settings = MODEL.model_copy(update={"seed": seed})
        corpus = (f"Hello {at}, where is my lamp? I am sorry." for at in range(50))
        policy, tokenizer = open_base(settings, corpus=corpus, device=choose_device(COMPUTE))
        save_policy(policy, tokenizer, folder / "model", settings=settings)
        return folder

    return make


@pytest.fixture
def speaker(tmp_path, make_checkpoint):
    with speaking(
        Voice("sft", make_checkpoint(tmp_path)),
        max_length=MODEL.max_length,
        compute=COMPUTE,
        settings=SETTINGS,
        reporter=Quiet(),
    ) as loaded:
        yield loaded


def test_scores_come_by_key_and_over_long_questions_are_absent(speaker):
    questions = [Question("a", PROMPT, "On its way.", "No."), Question("b", PROMPT, "word " * 300, "No.")]
    answers = speaker.score(questions)
    assert set(answers) == {"a"}
    assert answers["a"].chosen_logp < 0
    assert answers["a"].chosen_tokens > answers["a"].rejected_tokens > 0
    assert speaker.score([]) == {}


def test_replies_are_repeatable_and_as_long_as_allowed(speaker):
    asked = [PROMPT, PROMPT]
    drawn = [speaker.reply(asked, temperature=1.0, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert len(set(speaker.reply(asked, temperature=0.0, seed=1))) == 1
    assert all(each.token_count <= 5 for each in drawn[0])


def test_the_whole_stage_on_two_checkpoints(make_world, make_checkpoint):
    """Two equal models that babble to the limit: equal figures, and no promotion of what never ends a reply."""
    world = make_world(pair_count=8)
    for name in ("sft", "dpo"):
        make_checkpoint(world.root / name)
    (world.root / "out").mkdir()
    outcome = stage.evaluate(
        world.root / "pairs",
        [world.root / "demonstrations"],
        world.root / "sft",
        world.root / "dpo",
        world.root / "reference",
        world.root / "out",
        work=world.root / "work",
        evaluation=SETTINGS,
        dpo_settings=stage.DpoSettings(),
        model=MODEL,
        compute=COMPUTE,
        reporter=Quiet(),
    )
    report = world.report()
    assert outcome.facts["outcome"] == "not_better"
    assert "KL per token: could not be measured" in outcome.facts["reason"]
    assert report["perplexity"]["sft"] == report["perplexity"]["dpo"]
    assert math.isfinite(report["perplexity"]["dpo"]["value"])
    assert report["generations"]["sft"]["greedy"]["count"] == 4

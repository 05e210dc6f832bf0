"""The reward model judge on a classifier of a few hundred parameters, made here."""

import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.evaluation.judges import Comparison, Verdict, judge_both_orders
from dpo_pipeline.evaluation.reward_judge import RewardJudge
from dpo_pipeline.evaluation.settings import RewardJudgeSettings

WORDS = ["<pad>", "<unk>", "user", "assistant", ":", "hello", "good", "bad"]


def make_classifier(folder, *, outputs=1, scores=True):
    """A one-layer Llama with random weights from a fixed seed, saved as safetensors."""
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=outputs,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config)
    if not scores:
        torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    return RewardJudge(RewardJudgeSettings(path=str(folder), batch_size=2))


def comparison(first, second):
    return Comparison((("user", "hello"),), first, second)


def test_it_prefers_the_higher_score_whatever_the_order(tmp_path):
    judge = make_classifier(tmp_path / "reward")
    pairs = [comparison("good", "bad"), comparison("good good", "bad hello"), comparison("good", "good")]
    judged = judge_both_orders(judge, pairs)
    assert judged.flips == 0
    assert judged.verdicts[2] is Verdict.TIE
    assert judged.verdicts[0] in {Verdict.FIRST, Verdict.SECOND}
    assert judge.compare(pairs) == list(judged.verdicts)


def test_a_verdict_does_not_depend_on_who_shares_the_batch(tmp_path):
    judge = make_classifier(tmp_path / "reward")
    pairs = [comparison("good", "bad"), comparison("good good good hello", "bad"), comparison("hello", "bad bad")]
    assert judge.compare(pairs) == [judge.compare([each])[0] for each in pairs]


def test_close_scores_are_a_tie_by_the_margin(tmp_path):
    judge = make_classifier(tmp_path / "reward")
    judge.settings = judge.settings.model_copy(update={"tie_margin": 1e6})
    assert judge.compare([comparison("good", "bad")]) == [Verdict.TIE]


def test_nan_scores_are_no_answer(tmp_path):
    judge = make_classifier(tmp_path / "reward", scores=False)
    assert judge.compare([comparison("good", "bad")]) == [None]


def test_no_comparison_loads_no_model(tmp_path):
    assert RewardJudge(RewardJudgeSettings(path=str(tmp_path / "nowhere"))).compare([]) == []


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        RewardJudge(RewardJudgeSettings(path=str(tmp_path))).compare([comparison("good", "bad")])


def test_a_classifier_with_two_outputs_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="has 2 outputs"):
        make_classifier(tmp_path / "two", outputs=2).compare([comparison("good", "bad")])

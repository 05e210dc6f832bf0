"""The plug-in point for toxicity: a function of one's own, and a classifier in a pinned folder."""

import math
import sys
import types

import pyarrow as pa
import pytest
from test_cleaning import GOOD, OTHER, found_by

from dpo_pipeline.core.errors import InputError, SettingsError
from dpo_pipeline.preferences.cleaning import prepare
from dpo_pipeline.preferences.pinned import PinnedFolder, sha256_of_folder
from dpo_pipeline.preferences.settings import PreferenceSettings, TextScorer
from dpo_pipeline.preferences.text_scorers import HuggingFaceClassifier, _loaded, scores_at_least

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "are", "kind", "a", "blockhead"]


@pytest.fixture
def plugin(monkeypatch):
    """A module `my_scorers` with the function given as `shout` or `blockhead`."""
    module = types.ModuleType("my_scorers")
    seen = []

    def blockhead(texts):
        seen.extend(texts)
        return [0.9 if "blockhead" in text else 0.1 for text in texts]

    module.blockhead, module.seen = blockhead, seen
    module.wrong_count = lambda texts: [0.5] * (len(texts) + 1)
    module.not_a_share = lambda texts: [math.nan for _ in texts]
    monkeypatch.setitem(sys.modules, "my_scorers", module)
    _loaded.cache_clear()
    return module


def scorer(name, **given):
    return {"function": f"my_scorers:{name}", "version": "1", **given}


def test_a_function_of_ones_own_finds_pairs(plugin):
    toxic = f"You blockhead. {OTHER}"
    assert found_by("Hi", GOOD, toxic, toxicity=scorer("blockhead")) == {"toxicity"}
    assert found_by("Hi", GOOD, toxic, toxicity=scorer("blockhead", threshold=0.95)) == set()
    assert found_by("You blockhead", GOOD, OTHER, toxicity=scorer("blockhead")) == set()
    assert found_by("Hi", GOOD, toxic, toxicity=scorer("blockhead"), rules={"toxicity": "off"}) == set()
    assert PreferenceSettings().rules.toxicity == "flag"


def test_every_distinct_text_is_scored_once(plugin):
    texts = pa.array(["x", "y blockhead", "x", "x"])
    assert scores_at_least(texts, TextScorer(**scorer("blockhead"))).tolist() == [False, True, False, False]
    assert plugin.seen == ["x", "y blockhead"]


@pytest.mark.parametrize(
    ("name", "found"),
    [("wrong_count", "returned 2 numbers for 1 texts"), ("not_a_share", "returned the number nan")],
)
def test_a_function_that_returns_something_else_is_named(plugin, name, found):
    with pytest.raises(InputError, match=found):
        scores_at_least(pa.array(["x"]), TextScorer(**scorer(name)))


@pytest.mark.parametrize("function", ["no_such_package:score", "math:no_such_function"])
def test_a_function_that_is_not_there_is_said_before_any_text_is_read(function):
    with pytest.raises(InputError, match=f"there is no function {function}"):
        prepare(PreferenceSettings(toxicity={"function": function, "version": "1"}))


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "give either function or model"),
        ({"function": "a:b"}, "give the function's version"),
        ({"function": "a:b", "version": "1", "model": {"sha256": "0" * 64}}, "give either function or model"),
    ],
)
def test_settings_that_do_not_fit(given, fault):
    with pytest.raises(SettingsError, match=fault):
        TextScorer.parse(given, where="test")


def classifier(folder, problem="single_label_classification", labels=("fine", "toxic")):
    """A tiny BERT whose weights say: `blockhead` is toxic, everything else is fine."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=16, num_labels=len(labels), problem_type=problem,
        id2label=dict(enumerate(labels)), label2id={label: place for place, label in enumerate(labels)},
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=512
    ).save_pretrained(folder)
    return model


def logits_of(model, text):
    import torch

    ids = [2, *(WORDS.index(word) for word in text.split()), 3]
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification"])
def test_the_classifiers_scores_are_the_models_own_whatever_they_are_padded_with(problem, tmp_path):
    model = classifier(tmp_path, problem)
    texts = ["you are kind", "you", "you are a blockhead"]
    scores = HuggingFaceClassifier(tmp_path, ["toxic"])(texts)
    for text, score in zip(texts, scores, strict=True):
        logits = logits_of(model, text)
        expected = logits.softmax(-1)[1] if problem.startswith("single") else logits.sigmoid()[1]
        assert score == pytest.approx(float(expected), abs=1e-6)


def test_a_text_longer_than_the_model_reads_is_cut(tmp_path):
    classifier(tmp_path)
    (score,) = HuggingFaceClassifier(tmp_path, ["toxic"])(["you " * 1_000])
    assert 0 < score < 1


def test_labels_that_exclude_each_other_are_added(tmp_path):
    classifier(tmp_path)
    (score,) = HuggingFaceClassifier(tmp_path, ["fine", "toxic"])(["you are kind"])
    assert score == pytest.approx(1.0, abs=1e-6)


def test_a_pinned_classifier_finds_pairs_and_stands_in_the_recipe(tmp_path):
    model = classifier(tmp_path)
    pinned = PinnedFolder(path=str(tmp_path), sha256=sha256_of_folder(tmp_path))
    clean, toxic = (float(logits_of(model, text).softmax(-1)[1]) for text in ("you are kind", "you are a blockhead"))
    between, more = (clean + toxic) / 2, "you are a blockhead" if toxic > clean else "you are kind"
    less = "you are kind" if toxic > clean else "you are a blockhead"
    settings = {"toxicity": {"model": pinned, "threshold": between}}
    assert "toxicity" in found_by("Hi", more, less, **settings)
    assert "toxicity" not in found_by("Hi", less, less, **settings)
    recipe = PreferenceSettings(**settings).model_dump(mode="json")["toxicity"]["model"]
    assert recipe == {"sha256": pinned.sha256}


def test_a_model_that_was_altered_or_has_other_labels_is_refused(tmp_path):
    classifier(tmp_path)
    pinned = {"path": str(tmp_path), "sha256": sha256_of_folder(tmp_path)}
    with pytest.raises(InputError, match="has no label 'rude'") as caught:
        prepare(PreferenceSettings(toxicity={"model": pinned, "labels": ["rude"]}))
    assert "some of fine, toxic" in str(caught.value)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has the SHA-256"):
        prepare(PreferenceSettings(toxicity={"model": pinned}))


def test_a_folder_without_a_model_is_said(tmp_path):
    (tmp_path / "readme.txt").write_text("nothing here")
    with pytest.raises(InputError, match="holds no text-classification model"):
        prepare(PreferenceSettings(toxicity={"model": {"path": str(tmp_path), "sha256": sha256_of_folder(tmp_path)}}))

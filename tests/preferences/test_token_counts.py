"""Length in tokens: counted where a tokenizer's kind demands it, told from bytes where it may be."""

import json

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.cleaning import prepare
from dpo_pipeline.preferences.pinned import HubFile, PinnedFile
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.token_counts import exceeds, token_counter
from dpo_pipeline.profiles import load_profile

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def byte_level(normalizer=None, vocabulary_size=257):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if vocabulary_size > 256 else ["a"]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["hello"], trainer)
    return tokenizer


def expanding():
    """A tokenizer that makes 18 letters, each a token, of one character: by bytes it would look short."""
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, byte_fallback=False))
    tokenizer.normalizer = normalizers.Replace("ﷺ", "a" * 18)
    tokenizer.pre_tokenizer = pre_tokenizers.Split("a", "isolated")
    return tokenizer


def pinned(tokenizer, folder, name="tokenizer.json"):
    path = folder / name
    tokenizer.save(str(path))
    return PinnedFile(path=str(path), sha256=sha256_of_file(path))


@pytest.mark.parametrize(
    ("tokenizer", "most"),
    [
        (byte_level(), 1),
        (byte_level(normalizers.NFC()), 3),
        (byte_level(normalizers.NFKC()), None),
        (byte_level(vocabulary_size=20), None),
        (expanding(), None),
    ],
    ids=["byte level", "NFC", "NFKC", "letters missing", "not byte level"],
)
def test_only_a_whole_byte_level_tokenizer_is_believed_to_make_one_token_of_a_byte(tokenizer, most, tmp_path):
    counter = token_counter(pinned(tokenizer, tmp_path))
    assert counter.most_per_byte == most


def test_the_bound_holds_where_it_is_used(tmp_path):
    """U+1D160 is 4 bytes, and 12 after NFC: each a token, and one more for the space put before."""
    counter = token_counter(pinned(byte_level(normalizers.NFC()), tmp_path))
    assert counter.counts(pa.array(["\U0001d160"])).tolist() == [13]


def test_a_tokenizer_that_is_not_byte_level_counts_every_text(tmp_path):
    """Four times three bytes become 72 tokens: more than 30, though the texts have 16 bytes in all."""
    source = pinned(expanding(), tmp_path)
    prompt, short, long = pa.array(["a"]), pa.array(["a"]), pa.array(["ﷺ" * 4])
    assert exceeds(prompt, (short, long), 30, source).tolist() == [True]
    assert exceeds(prompt, (short, long), 73, source).tolist() == [False]
    (said,) = prepare(PreferenceSettings(tokenizer=source))
    assert said == "too_long: the tokenizer is not byte-level, so every text is counted, which takes a while"


def test_what_is_no_tokenizer_is_said_before_any_text_is_read(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(InputError, match="is no tokenizer"):
        prepare(PreferenceSettings(tokenizer=PinnedFile(path=str(path), sha256=sha256_of_file(path))))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A Hugging Face cache without a connection."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_tokenizer_of_the_hub_is_taken_from_the_cache(cache):
    snapshot = cache / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    pinned(byte_level(), snapshot)
    assert token_counter(HubFile(hub=f"owner/name@{COMMIT}")).most_per_byte == 1


def test_a_tokenizer_that_is_not_cached_is_asked_for(cache):
    with pytest.raises(InputError) as caught:
        token_counter(HubFile(hub=f"owner/absent@{COMMIT}"))
    assert str(caught.value).startswith(
        f"tokenizer.json of owner/absent@{COMMIT} is not in this machine's cache and could not be downloaded"
    )
    assert f"hf download owner/absent tokenizer.json --revision {COMMIT}" in str(caught.value)


def test_the_word_model_stands_for_the_models_repository():
    values = {"model": {"scratch": None, "hub": f"owner/name@{COMMIT}"}, "preferences": {"tokenizer": "model"}}
    assert load_profile("demo", overrides=values).preferences.tokenizer == HubFile(hub=f"owner/name@{COMMIT}")
    with pytest.raises(Exception, match=r"model\.hub names none"):
        load_profile("demo", overrides={"preferences": {"tokenizer": "model"}})
    with pytest.raises(Exception, match="a branch can change"):
        load_profile("demo", overrides={"preferences": {"tokenizer": {"hub": "owner/name@main"}}})


def test_where_a_pinned_file_lies_shapes_nothing(tmp_path):
    """Equal settings but for the path have one digest: the recipe names the bytes, not the place."""
    here = PreferenceSettings(tokenizer=pinned(byte_level(), tmp_path))
    there = PreferenceSettings(tokenizer=here.tokenizer.model_copy(update={"path": "/elsewhere/t.json"}))
    assert here.digest == there.digest
    assert "path" not in here.model_dump(mode="json")["tokenizer"]
    other = PreferenceSettings(tokenizer=here.tokenizer.model_copy(update={"sha256": "0" * 64}))
    assert here.digest != other.digest


def test_settings_read_back_from_a_recipe_say_that_the_place_is_missing(tmp_path):
    recipe = PreferenceSettings(tokenizer=pinned(byte_level(), tmp_path)).model_dump(mode="json")
    with pytest.raises(InputError, match="no path is given for the file with SHA-256"):
        prepare(PreferenceSettings.parse(recipe, where="recipe"))

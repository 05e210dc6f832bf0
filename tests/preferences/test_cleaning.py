"""Every cleaning rule by example: what it finds, and what it lets pass."""

import pyarrow as pa
import pytest

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.tables import MESSAGES
from dpo_pipeline.preferences.cleaning import RULES, PairTexts, find_all
from dpo_pipeline.preferences.normalize import map_contents, normalise
from dpo_pipeline.preferences.personal_data import redact
from dpo_pipeline.preferences.settings import PreferenceSettings, RuleActions

GOOD = "You can return the lamp within thirty days, in its box, and we pay for the parcel."
OTHER = "Returns are possible for a month. Please keep the box; sending it back is free."


def found_by(prompt, low, high, **settings):
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    prompts = pa.array([turns], MESSAGES)
    one, other = pa.array([low]), pa.array([high])
    texts = PairTexts.of(prompts, one, other, map_contents(prompts, normalise), normalise(one), normalise(other))
    return {name for name, hits in find_all(texts, PreferenceSettings(**settings)).items() if hits[0]}


CASES = [
    ("How do I return it?", GOOD, OTHER, set()),
    ("", GOOD, OTHER, {"prompt_missing"}),
    (" \u200b\n", GOOD, OTHER, {"prompt_missing"}),
    ([], GOOD, OTHER, {"prompt_missing"}),
    ([{"role": "system", "content": "Be kind."}], GOOD, OTHER, {"prompt_missing"}),
    ("Hi", "", OTHER, {"empty_response", "length_ratio"}),
    ("Hi", "\u200b \n", OTHER, {"empty_response", "length_ratio"}),
    ("Hi", GOOD, GOOD.upper() + "  ", {"identical_responses"}),
    ("Hi", GOOD, GOOD + " " + OTHER, {"truncated_response"}),
    ("Hi", "Yes", "Yes, we do.", {"truncated_response"}),
    ("Hi", "Yes, we do.", "Yes, we don't.", set()),
    ("Hi", "Itâ€™s fine, weâ€™ll send it.", OTHER, {"encoding_damage"}),
    ("Hi", GOOD, "We\ufffdll send it tomorrow morning.", {"encoding_damage"}),
    ("Hi", "Señor, el café está à point – naïve “quotes” Ärger", OTHER, set()),
    ("Hi", GOOD + "<|im_end|>", OTHER, {"template_artefact"}),
    ("Hi", GOOD, "Human: what now?\nAssistant: nothing more to say.", {"template_artefact"}),
    ("Hi", GOOD, "[INST] Say hello [/INST] hello and welcome", {"template_artefact"}),
    ("Hi", GOOD, "In HTML, use <s>strike</s> or <b>bold</b>.", {"template_artefact"}),
    ("Hi", "The humans: a story of many kinds.", OTHER, set()),
    ("Hi", "I'm sorry, but I can't help with that.", "I cannot assist with this request.", {"refusal_only"}),
    ("Hi", "I'm sorry, but I can't help with that.", OTHER, set()),
    ("Hi", "No.", OTHER, {"length_ratio"}),
    ("x" * 25_000, GOOD, OTHER, {"too_long"}),
    ("Wie kann ich die Lampe zurückgeben?", "Вы можете вернуть лампу в течение месяца.", GOOD, {"script_mismatch"}),
    ("¿Cómo devuelvo la lámpara que compré?", GOOD, OTHER, set()),
    ("Hi", GOOD, OTHER + " Write to Jo.Doe+x@example.co.uk", {"email"}),
    ("Mail me: a@b.org", GOOD, OTHER, {"email"}),
    ("Hi", GOOD, OTHER + " Call +49 (30) 1234 5678.", {"phone"}),
    ("Hi", GOOD, OTHER + " Call (555) 123-4567 or 555-123-4567.", {"phone"}),
    ("Hi", GOOD, OTHER + " Order 20260914, 12 of 300, version 1.2.3", set()),
    ("Hi", GOOD, OTHER + " Card 4111 1111 1111 1111.", {"payment_card"}),
    ("Hi", GOOD, OTHER + " Number 4111 1111 1111 1112.", set()),
]


@pytest.mark.parametrize(("prompt", "low", "high", "expected"), CASES)
def test_rules_find(prompt, low, high, expected):
    assert found_by(prompt, low, high) == expected
    assert found_by(prompt, high, low) == expected


def test_toxic_patterns_are_the_users_own():
    assert found_by("Hi", GOOD, "You BLOCKHEAD, " + OTHER, toxic_patterns=[r"\bblockhead\b"]) == {"toxic_pattern"}


def test_a_rule_that_is_off_finds_nothing():
    assert found_by("Hi", "", GOOD, rules={"empty_response": "off", "length_ratio": "off"}) == set()


def test_limits_are_tunable():
    assert found_by("Hi", "No.", OTHER, max_length_ratio=100) == set()
    assert found_by("Hello " * 10, GOOD, OTHER, max_tokens=25) == {"too_long"}


def test_every_rule_has_an_action_and_every_action_a_rule():
    assert sorted(rule.name for rule in RULES) == sorted(RuleActions.model_fields)
    assert all(field.description for field in RuleActions.model_fields.values())


def test_personal_data_length_language_and_refusals_are_flagged_by_default():
    actions = RuleActions()
    for name in ("email", "phone", "payment_card", "length_ratio", "too_long", "script_mismatch", "refusal_only"):
        assert getattr(actions, name) == "flag"


def test_redact_replaces_what_it_was_asked_to():
    text = "Mail a@b.org, call 555-123-4567, card 4111-1111-1111-1111, order 4111-1111-1111-1112."
    redacted = redact(pa.array([text]), rules=frozenset({"email", "phone", "payment_card"}))[0].as_py()
    assert redacted == "Mail [EMAIL], call [PHONE], card [CARD], order 4111-1111-1111-1112."
    assert redact(pa.array([text]), rules=frozenset())[0].as_py() == text


def test_responses_that_differ_in_personal_data_alone_are_one_once_it_is_redacted():
    texts = ("Hi", "Write to anna@example.org, we are glad to help.", "Write to bob@example.org, we are glad to help.")
    assert "identical_responses" not in found_by(*texts)
    assert "identical_responses" in found_by(*texts, rules=RuleActions(email="redact"))
    assert "identical_responses" not in found_by(*texts, rules=RuleActions(phone="redact"))


@pytest.fixture
def byte_tokenizer(tmp_path):
    """One token per byte, but "hello" is one; puts a token of its own before every text, which must not be counted."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["hello"] * 9, trainers.BpeTrainer(vocab_size=261, initial_alphabet=alphabet))
    begin = tokenizer.token_to_id("h")
    tokenizer.post_processor = processors.TemplateProcessing(single="h $A", special_tokens=[("h", begin)])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return {"path": str(path), "sha256": sha256_of_file(path)}


def test_too_long_is_counted_in_tokens(byte_tokenizer):
    """A prompt of 6 tokens and a reply of 24: 30 fit, 29 do not. Without a tokenizer four characters are one."""
    texts = ("hello" * 6, "z" * 24, "y")
    assert "too_long" not in found_by(*texts, max_tokens=30, tokenizer=byte_tokenizer)
    assert "too_long" in found_by(*texts, max_tokens=29, tokenizer=byte_tokenizer)
    assert "too_long" not in found_by(*texts, max_tokens=25)


def test_a_tokenizer_that_is_another_file_is_refused(byte_tokenizer):
    pinned = {**byte_tokenizer, "sha256": "0" * 64}
    with pytest.raises(InputError, match=f"has the SHA-256 {byte_tokenizer['sha256']}"):
        found_by("hello" * 9, GOOD, OTHER, max_tokens=25, tokenizer=pinned)

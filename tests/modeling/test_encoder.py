"""Tokens kept beside an artifact: the same as tokenized anew, asked for by text, worthless under another encoding."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import texts, tokenizer

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.modeling import kept_tokens, template
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.kept_tokens import KEPT_TOKENS, TOKENS, KeptTokens, keeping, keys_of
from dpo_pipeline.modeling.template import Encoded, LeftOut

LENGTH = 128
TOO_LONG = ([{"role": "user", "content": "why"}], "because " * 200, "no")
ROWS = [*texts(30), TOO_LONG]


@pytest.fixture
def asked(monkeypatch):
    """Every text the tokenizer was given."""
    given, real = [], template._tokenize
    monkeypatch.setattr(template, "_tokenize", lambda made, some: given.extend(some) or real(made, some))
    template.end_of_turn_ids(tokenizer())  # asks once for each tokenizer
    given.clear()
    return given


def encode(encoder, rows, block=7):
    """As stages do it: block by block."""
    found = []
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        found += encoder.encode([row[0] for row in some], [row[1:] for row in some])
    return found


def kept_in(folder, rows, *, max_length=LENGTH, known=()):
    folder.mkdir()
    encoder = Encoder(tokenizer(), max_length=max_length, known=known)
    with encoder.keeping_in(folder):
        encode(encoder, rows)
    return folder


def plain(items):
    return [
        item if isinstance(item, LeftOut)
        else (item.prompt.tolist(), [reply.tolist() for reply in item.responses], item.prompt_tokens_cut)
        for item in items
    ]  # fmt: skip


def test_known_conversations_are_not_tokenized_and_come_out_the_same(tmp_path, asked):
    folder = kept_in(tmp_path / "first", ROWS)
    fresh = plain(encode(Encoder(tokenizer(), max_length=LENGTH), ROWS))
    asked.clear()
    encoder = Encoder(tokenizer(), max_length=LENGTH, known=[folder])
    assert plain(encode(encoder, ROWS, block=5)) == fresh
    assert asked == []
    assert (encoder.reused, encoder.tokenized) == (31, 0)
    assert encoder.words == "Tokens made of 0 conversations; those of 31 others are kept from an earlier pass."
    assert fresh[-1] is LeftOut.RESPONSE_TOO_LONG, "what was left out is known as well"


def test_of_rows_with_new_ones_among_them_only_the_new_are_tokenized(tmp_path, asked):
    more = list(texts(3, seed=9))
    folder = kept_in(tmp_path / "first", ROWS)
    both = [more[0], *ROWS[4:20], more[1], *ROWS[20:], more[2]]
    asked.clear()
    second = kept_in(tmp_path / "second", both, known=[folder])
    assert len(asked) == 3 * 3, "prompt, chosen and rejected of three pairs"
    assert all(f"Order 9-{number}:" in text for number, text in zip([0] * 3 + [1] * 3 + [2] * 3, asked, strict=True))
    anew = kept_in(tmp_path / "anew", both)
    assert (second / TOKENS).read_bytes() == (anew / TOKENS).read_bytes()


def test_what_one_table_holds_is_not_decoded_from_the_next(tmp_path, monkeypatch):
    few, all_of_it, again = (
        kept_in(tmp_path / name, rows) for name, rows in (("few", ROWS[:14]), ("all", ROWS), ("again", ROWS))
    )
    decoded, real = [], KeptTokens._group
    monkeypatch.setattr(
        KeptTokens,
        "_group",
        lambda kept, number: decoded.append((kept._path.parent.name, number)) or real(kept, number),
    )
    encoder = Encoder(tokenizer(), max_length=LENGTH, known=[few, all_of_it, again])
    assert plain(encode(encoder, ROWS)) == plain(encode(Encoder(tokenizer(), max_length=LENGTH), ROWS))
    assert decoded == [("few", 0), ("few", 1), ("all", 2), ("all", 3), ("all", 4)]


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 96},
        {"template": "{{ bos_token }}" + template.CHATML},
        {"special": {"unk_token": "<|im_end|>"}},
        {"code": "other"},
    ],
    ids=["length", "template", "special tokens", "code"],
)
def test_under_another_encoding_nothing_is_known(tmp_path, change, monkeypatch):
    folder = kept_in(tmp_path / "first", ROWS)
    made = tokenizer()
    if "template" in change:
        monkeypatch.setattr(made, "chat_template", change["template"])
    if "special" in change:
        monkeypatch.setattr(type(made), "special_tokens_map", change["special"])
    if "code" in change:
        monkeypatch.setattr(kept_tokens, "CODE_VERSION", change["code"])
    encoder = Encoder(made, max_length=change.get("max_length", LENGTH), known=[folder])
    encode(encoder, ROWS[:3])
    assert (encoder.reused, encoder.tokenized) == (0, 3)


def test_cutting_or_padding_that_happens_to_be_set_is_no_other_encoding(tmp_path):
    folder = kept_in(tmp_path / "first", ROWS)
    tokenizer()(["a", "b c"], padding=True, truncation=True, max_length=4)
    encoder = Encoder(tokenizer(), max_length=LENGTH, known=[folder])
    encode(encoder, ROWS)
    assert encoder.tokenized == 0


def test_a_tokenizer_saved_and_loaded_is_the_same_encoding(tmp_path):
    from transformers import AutoTokenizer

    folder = kept_in(tmp_path / "first", ROWS)
    tokenizer().save_pretrained(tmp_path / "saved")
    encoder = Encoder(AutoTokenizer.from_pretrained(str(tmp_path / "saved")), max_length=LENGTH, known=[folder])
    encode(encoder, ROWS)
    assert encoder.tokenized == 0


def test_folders_without_tokens_are_passed_over_and_unreadable_ones_named(tmp_path):
    (tmp_path / "old").mkdir()
    encoder = Encoder(tokenizer(), max_length=LENGTH, known=[tmp_path / "old"])
    assert len(encode(encoder, ROWS)) == len(ROWS)
    (tmp_path / "old" / TOKENS).write_bytes(b"PAR1 not really")
    with pytest.raises(ArtifactError, match="tokens of an earlier artifact cannot be read"):
        encode(Encoder(tokenizer(), max_length=LENGTH, known=[tmp_path / "old"]), ROWS)


def test_two_row_groups_at_most_are_held(tmp_path):
    kept = KeptTokens(kept_in(tmp_path / "first", ROWS) / TOKENS)
    keys = keys_of([row[0] for row in ROWS], [row[1:] for row in ROWS])
    for place in range(len(ROWS)):
        kept.find(keys[place : place + 1])
        assert len(kept._held) <= 2
    assert pq.read_metadata(tmp_path / "first" / TOKENS).num_row_groups == 5


def test_what_is_found_holds_no_row_group_in_memory(tmp_path):
    """An evaluation asks for the held-out pairs at once, a few of every row group."""
    kept = KeptTokens(kept_in(tmp_path / "first", ROWS) / TOKENS)
    some = ROWS[::7]
    found = kept.find(keys_of([row[0] for row in some], [row[1:] for row in some]))
    assert all(tokens.base is None for item in found[:4] for tokens in (item.prompt, *item.responses))


def test_the_table_says_what_it_holds(tmp_path):
    table = pq.read_table(kept_in(tmp_path / "first", ROWS) / TOKENS)
    assert table.schema.equals(KEPT_TOKENS)
    assert table["left_out"].to_pylist() == [None] * 30 + ["response_too_long"]
    ids = table["responses"][0].as_py()[0]
    assert tokenizer().decode(ids) == f"{ROWS[0][1]}<|im_end|>\n"


IDS = st.lists(st.integers(0, 200_000), max_size=5).map(lambda ids: np.array(ids, np.int32))
ITEMS = st.one_of(
    st.sampled_from(list(LeftOut)),
    st.builds(Encoded, IDS, st.lists(IDS, max_size=3).map(tuple), st.integers(0, 9)),
)


@settings(max_examples=60, deadline=None)
@given(blocks=st.lists(st.lists(ITEMS, max_size=6), max_size=4), chance=st.randoms(use_true_random=False))
def test_law_what_is_kept_is_found_again_in_any_order(tmp_path_factory, blocks, chance):
    folder = tmp_path_factory.mktemp("law")
    items = [item for block in blocks for item in block]
    keys = keys_of([[{"role": "user", "content": str(n)}] for n in range(len(items) + 1)], [[]] * (len(items) + 1))
    with keeping(folder, "x") as kept:
        first = 0
        for block in blocks:
            kept.add(keys[first : first + len(block)], block)
            first += len(block)
    order = chance.sample(range(len(keys)), len(keys))
    found = KeptTokens(folder / TOKENS).find(keys[order])
    assert plain(item for place, item in zip(order, found, strict=True) if place < len(items)) == plain(
        items[place] for place in order if place < len(items)
    )
    assert found[order.index(len(items))] is None


TEXT = st.text(max_size=4)


@given(st.tuples(TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT))
def test_law_equal_keys_mean_equal_texts(one, other):
    keys = keys_of([[{"role": "user", "content": text[0]}] for text in (one, other)], [one[1:], other[1:]])
    assert (keys[0] == keys[1]) == (one == other)

"""The reference table: equal to a live reference, reused row by row, only new pairs computed."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from worlds import ADAPTED, COMPUTE, SFT, Notes, World, pairs_of, texts, write_pairs

from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.dpo.pairs import iterate_pairs, pair_weights
from dpo_pipeline.dpo.reference import TABLE, compute_reference
from dpo_pipeline.modeling import template
from dpo_pipeline.modeling.encoder import Encoder
from dpo_pipeline.modeling.kept_tokens import TOKENS
from dpo_pipeline.modeling.policy import load_policy
from dpo_pipeline.modeling.scoring import Pair, score_pairs
from dpo_pipeline.modeling.settings import Precision
from dpo_pipeline.sft.train import train_sft

TURN = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("reference"), ADAPTED)


def rows(folder):
    return pq.read_table(folder / TABLE).to_pylist()


def test_the_table_is_what_the_live_reference_thinks(world):
    model, tokenizer = load_policy(world.checkpoint / "model", device="cpu")
    texts_of = [Pair(*(row[name] for name in Pair._fields)) for block in iterate_pairs(world.pairs) for row in block]
    encoder = Encoder(tokenizer, max_length=world.model.max_length)
    live = score_pairs(model, encoder, texts_of, compute=COMPUTE, reporter=Notes())
    table = rows(world.reference)
    assert [row["pair_id"] for row in table] == [score.pair_id for score in live.rows]
    for row, score in zip(table, live.rows, strict=True):
        assert (row["chosen_tokens"], row["rejected_tokens"]) == (score.chosen_tokens, score.rejected_tokens)
        assert row["chosen_logp"] == pytest.approx(score.chosen_logp, abs=1e-4)
        assert row["rejected_logp"] == pytest.approx(score.rejected_logp, abs=1e-4)
    assert {row["split"] for row in table} == {"train", "held_out"}


def test_with_an_untrained_adapter_the_base_is_the_reference(world):
    """The adapter switched off is the base: the same numbers from both."""
    from dpo_pipeline.modeling.device import choose_device
    from dpo_pipeline.modeling.scoring import encode_pairs, score_encoded

    model, tokenizer = load_policy(world.checkpoint / "model", device="cpu")
    encoded = encode_pairs(Encoder(tokenizer, max_length=128), pairs_of(5)).pairs
    device = choose_device(COMPUTE)
    with model.disable_adapter():
        off = score_encoded(model, encoded, device=device, reporter=Notes())
    base = score_encoded(model.unload(), encoded, device=device, reporter=Notes())
    assert off.tolist() == base.tolist()
    assert off.shape == (5, 2)
    assert (off < 0).all()


def test_only_new_pairs_are_computed(world):
    more = write_pairs(world.root / "more", [*texts(30), *texts(4, seed=77)])
    out = world.folder("more reference")
    outcome = world.refer(out, known=[world.reference], pairs=more)
    assert (outcome.remarks["reused"], outcome.remarks["scored"]) == (30, 4)
    old, new = rows(world.reference), rows(out)
    assert [row["key"] for row in new[:30]] == [row["key"] for row in old]
    assert [row["chosen_logp"] for row in new[:30]] == [row["chosen_logp"] for row in old], "taken over to the bit"


@pytest.fixture
def asked(monkeypatch):
    """Every text of a conversation that the tokenizer was given."""
    given, real = [], template._tokenize

    def tokenize(made, some):
        given.extend(text for text in some if text != TURN)  # asked once for each tokenizer, to learn how turns end
        return real(made, some)

    monkeypatch.setattr(template, "_tokenize", tokenize)
    return given


def test_a_new_drop_of_one_percent_tokenizes_only_its_own_pairs(world, asked):
    hundred = [*texts(30), *texts(70, seed=5)]
    first, second, anew = (world.folder(f"{name} of a hundred") for name in ("table", "table with one", "anew"))
    world.refer(first, pairs=write_pairs(world.root / "hundred", hundred))
    more = write_pairs(world.root / "hundred and one", [*hundred[:40], *texts(1, seed=78), *hundred[40:]])
    asked.clear()
    outcome = world.refer(second, known=[first], pairs=more)
    assert [text.count("Order 78-0:") for text in asked] == [1, 1, 1], "prompt, chosen and rejected of the new pair"
    assert (outcome.remarks["tokenized"], outcome.remarks["scored"]) == (1, 1)
    world.refer(anew, pairs=more)
    assert (second / TOKENS).read_bytes() == (anew / TOKENS).read_bytes()
    assert [row["key"] for row in rows(second)] == [row["key"] for row in rows(anew)]


def test_other_weights_score_again_but_take_over_the_tokens(world, asked):
    other = world.folder("other weights")
    train_sft(
        [world.root / "demonstrations"], world.pairs, other, work=world.root / "work other", known=[world.checkpoint],
        sft=SFT.model_copy(update={"epochs": 2}), model=world.model, compute=COMPUTE, reporter=Notes(),
    )  # fmt: skip
    assert asked == [], "the demonstrations were known as well"
    out = world.folder("reference of other weights")
    outcome = compute_reference(
        world.pairs, other, out, known=[world.reference], model=world.model, compute=COMPUTE, reporter=Notes()
    )
    assert asked == []
    assert (outcome.remarks["reused"], outcome.remarks["scored"], outcome.remarks["tokenized"]) == (0, 30, 0)
    assert (out / TOKENS).read_bytes() == (world.reference / TOKENS).read_bytes()


def test_dpo_reads_the_tokens_the_reference_scored(world, asked):
    _, outcome = world.train("by the table")
    assert asked == []
    assert outcome.remarks["tokenized"] == 0


def test_other_weights_length_or_precision_share_no_row(world):
    out = world.folder("shorter reference")
    shorter = world.model.model_copy(update={"max_length": 64})
    outcome = compute_reference(
        world.pairs, world.checkpoint, out, known=[world.reference], model=shorter, compute=COMPUTE, reporter=Notes()
    )
    cut = outcome.counts["prompts_cut"]
    assert cut > 0
    assert outcome.remarks["reused"] == 30 - cut - outcome.books.rejected_count, "only pairs that were not cut"
    bf16 = COMPUTE.model_copy(update={"precision": Precision.BF16})
    out = world.folder("bf16 reference")
    outcome = compute_reference(
        world.pairs, world.checkpoint, out, known=[world.reference], model=world.model, compute=bf16, reporter=Notes()
    )
    assert outcome.remarks["reused"] == 0


def test_a_known_table_that_cannot_be_read_is_named(world, tmp_path):
    (tmp_path / TABLE).write_bytes(b"PAR1 not really")
    with pytest.raises(ArtifactError, match="cannot be read"):
        world.refer(world.folder("unreadable"), known=[tmp_path])


def test_agreement_becomes_weight():
    shares = np.array([1.0, 0.75, 0.5])
    assert pair_weights(shares, use_agreement=True).tolist() == [1.0, 0.5, 0.0]
    assert pair_weights(shares, use_agreement=False).tolist() == [1.0, 1.0, 1.0]

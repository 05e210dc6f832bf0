"""Books balance, settings complain together, seeds are apart, metrics read back, a home keeps its secrets."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from dpo_pipeline.core.books import Books, total
from dpo_pipeline.core.errors import ArtifactError, InputError, SettingsError
from dpo_pipeline.core.metrics import append_metrics, read_metrics
from dpo_pipeline.core.settings import Settings

COUNTS = st.dictionaries(st.sampled_from(["tie", "empty", "pii"]), st.integers(0, 99))


@given(COUNTS, COUNTS, st.integers(0, 99))
def test_books_survive_the_round_trip_and_balance_exactly_when_they_add_up(kept, rejected, merged):
    books = Books(sum(kept.values()) + sum(rejected.values()) + merged, Counter(kept), merged, Counter(rejected))
    assert books.is_balanced
    assert Books.from_dict(books.as_dict()) == books
    books.records_in += 1
    assert not books.is_balanced
    with pytest.raises(InputError, match="do not balance"):
        books.assert_balanced(of="a drop")


@given(st.lists(COUNTS))
def test_the_sum_of_balanced_books_balances(many):
    assert total(Books(sum(kept.values()), Counter(kept)) for kept in many).is_balanced


class Knobs(Settings):
    """Two knobs."""

    rate: float = Field(0.1, gt=0)
    """A rate."""

    count: int = 3
    """A count."""


def test_all_faults_of_a_profile_come_in_one_message():
    with pytest.raises(SettingsError) as caught:
        Knobs.parse({"rate": -1, "count": "many", "cuont": 4}, where="profile mine")
    assert str(caught.value) == (
        "3 values do not fit in profile mine:\n"
        "  - rate is -1: input should be greater than 0\n"
        "  - count is 'many': input should be a valid integer, unable to parse string as an integer\n"
        "  - cuont is not a known setting\n"
        "Correct them together and run again."
    )


def test_settings_are_frozen_and_their_digest_is_that_of_the_values():
    assert Knobs().digest == Knobs(rate=0.1).digest != Knobs(rate=0.2).digest
    with pytest.raises(ValueError, match="frozen"):
        Knobs().rate = 1.0
    assert Knobs.model_fields["rate"].description == "A rate."


def test_metrics_read_back_in_order_and_what_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    append_metrics(path, 1, {"loss": 0.5})
    append_metrics(path, 2, {"loss": math.nan})
    assert read_metrics(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_the_pseudonym_key_is_made_once_and_only_its_owner_may_read_it(home):
    assert home.pseudonym_key() == home.pseudonym_key()
    assert len(home.pseudonym_key()) == 32
    assert (home.root / "keys" / "pseudonym.key").stat().st_mode & 0o077 == 0


def test_another_pseudonym_key_has_another_fingerprint_that_does_not_hold_it(home):
    first = home.pseudonym_fingerprint()
    assert first == home.pseudonym_fingerprint()
    assert len(first) == 32
    assert home.pseudonym_key().hex() not in first
    (home.root / "keys" / "pseudonym.key").unlink()
    assert home.pseudonym_fingerprint() != first


def test_drops_come_in_order_of_first_arrival_whatever_their_names(home):
    for drop in ("b", "a", "b"):
        for asset in ("raw_annotations", "judgments"):
            home.ledger.append("finished", asset=asset, partition=drop, artifact=drop)
    home.ledger.append("finished", asset="raw_annotations", partition="c", artifact="c")
    assert home.partitions("judgments") == ["b", "a"]
    assert home.latest_line("judgments", "b")["seq"] == 5


def test_an_asset_never_made_says_to_materialize_it(home):
    with pytest.raises(ArtifactError, match="judgments of drop may has not been made yet"):
        home.latest("judgments", "may")

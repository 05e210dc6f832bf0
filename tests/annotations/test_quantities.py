"""Numbers, durations and times as people's spreadsheets hold them; what could be two things is none."""

from datetime import UTC, datetime, time, timedelta

import pytest

from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.rules import Rules

NOON = datetime(2026, 11, 5, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("12,5", 12.5),
        ("1:05", 65),
        ("0:01:05", 65),
        ("2:00:00,5", 7200.5),
        (timedelta(minutes=2), 120),
        (time(0, 1, 5), 65),
        ("1,234", None),
        ("-4", None),
        ("soon", None),
        pytest.param(10**400, None, id="400 digits"),
    ],
)
def test_durations(value, seconds):
    rules = Rules()
    assert rules.seconds(value) == seconds
    assert dict(rules.notes) == ({} if seconds is not None else {"unreadable_seconds": 1})


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("5.11.2026 12:30", NOON),
        ("05.11.2026, 12:30:00", NOON),
        ("11/5/2026 12:30", NOON),
        ("2026-11-05T12:30:00Z", NOON),
        (46331.520833333336, NOON),
        ("46331.520833333336", NOON),
        (NOON.timestamp(), NOON),
        (NOON.timestamp() * 1000, NOON),
        ("13/5/2026", None),
        ("31.2.2026", None),
    ],
)
def test_times(value, found):
    assert Rules().time(value) == found


def test_a_drop_may_say_that_its_dates_name_the_day_first():
    assert Rules(FileRule(day_first=True)).time("5/11/2026 12:30") == NOON
    assert Rules(FileRule(day_first=True)).time("5.11.2026 12:30") == NOON


def test_a_unit_holds_for_the_column_the_mapping_names_and_for_no_format_that_has_its_own():
    rules = Rules(FileRule(time_unit="minutes"))
    assert rules.mapped_seconds("1,5") == 90
    assert rules.mapped_seconds("0:01:30") == 90
    assert rules.seconds(90) == 90

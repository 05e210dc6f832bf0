"""Numbers, durations and times as spreadsheets write them, decimal commas and all."""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Any

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2}(?:[.,]\d+)?)")
_DECIMAL_COMMA = re.compile(r"-?\d+,\d{1,2}|-?\d+,\d{4,}")
"""`12,5`; not `1,234`, which may be either."""
_DAY_FIRST = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?:[ ,T]+(\d{1,2}):(\d{2})(?::(\d{2}))?)?")
"""Dots: nobody writes the month first with them."""
_SPREADSHEET_EPOCH = datetime(1899, 12, 30, tzinfo=UTC)
_SLASHES = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})(?:[ T](\d{1,2}):(\d{2})(?::(\d{2}))?)?")


def duration_of(value: Any, per_second: float = 1.0) -> float:
    """A duration in seconds: a number, or hours, minutes and seconds as spreadsheets write them.

    >>> duration_of("90"), duration_of("1,5", 1 / 60), duration_of("0:01:30"), duration_of("01:30.5")
    (90.0, 90.0, 90.0, 90.5)

    Raises:
        ValueError, TypeError: If it is none.
    """
    if isinstance(value, time):
        value = timedelta(hours=value.hour, minutes=value.minute, seconds=value.second)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and (match := _CLOCK.fullmatch(value.strip())):
        hours, minutes, seconds = match.groups()
        return int(hours or 0) * 3_600 + int(minutes) * 60 + float(seconds.replace(",", "."))
    return number_of(value) / per_second


def number_of(value: Any) -> float:
    """A number, also as text and with a decimal comma.

    >>> number_of("3,5"), number_of(2)
    (3.5, 2.0)

    Raises:
        ValueError, TypeError: If it is none, or could be two: `1,234`.
    """
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        value = value.strip().replace(",", ".")
    try:
        return float(value)
    except OverflowError as error:  # JSON may hold a whole number of hundreds of digits
        raise ValueError("the number is too large") from error


def time_of(value: Any, *, day_first: bool = False) -> datetime | None:
    """A time in UTC; None where the value is of another kind.

    >>> str(time_of("5.11.2026 14:03")), str(time_of("31/12/2026", day_first=True))
    ('2026-11-05 14:03:00+00:00', '2026-12-31 00:00:00+00:00')

    Raises:
        ValueError, OverflowError, OSError: If it is no time.
    """
    if isinstance(value, str):
        text = value.strip().removesuffix(" UTC")
        if text[4:5] == "-":
            value = datetime.fromisoformat(text)
        elif (match := _SLASHES.fullmatch(text)) is not None:
            first, second_part, year, hour, minute, second = (int(part or 0) for part in match.groups())
            day, month = (first, second_part) if day_first else (second_part, first)
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        elif (match := _DAY_FIRST.fullmatch(text)) is not None:
            day, month, year, hour, minute, second = (int(part or 0) for part in match.groups())
            return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        else:
            value = float(text)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value if value.tzinfo is UTC else value.astimezone(UTC)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _since_1970(float(value))
    return None


def _since_1970(number: float) -> datetime:
    """Seconds, milliseconds where they would lie beyond the year 5000, or days as spreadsheets count them.

    >>> str(_since_1970(46_000.5)), str(_since_1970(1_700_000_000))
    ('2025-12-09 12:00:00+00:00', '2023-11-14 22:13:20+00:00')
    """
    if 30_000 <= number < 80_000:  # 1982 to 2119; as seconds all of it were the first day of 1970
        return _SPREADSHEET_EPOCH + timedelta(seconds=round(number * 86_400))
    return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, tz=UTC)

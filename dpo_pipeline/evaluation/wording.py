"""Figures in words: the same rounding, dashes and minus signs on the page, in the picture and on the terminal."""

import unicodedata
from collections.abc import Mapping
from typing import Any

Figure = Mapping[str, Any]


def percent(figure: Figure | None) -> str:
    """A share as a percentage, one decimal only where it matters; a dash where it is missing.

    >>> percent({"value": 0.965}), percent({"value": 0.9963}), percent({"value": 0.0002}), percent(None)
    ('96 %', '99.6 %', '< 0.1 %', '–')
    """
    if figure is None or figure["value"] is None:
        return "–"
    value = 100 * figure["value"]
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.1f} %" if 99 < value < 100 or 0 < value < 1 else f"{value:.0f} %"


def number(figure: Figure | None, *, digits: int = 3) -> str:
    """A figure with so many significant digits; a dash where it is missing.

    >>> number({"value": 1.18342}), number({"value": 1834.2}), number({"value": None})
    ('1.18', '1,834', '–')
    """
    return "–" if figure is None or figure["value"] is None else _plain(figure["value"], digits=digits)


def interval(figure: Figure | None, *, share: bool = True) -> str:
    """The ends of an interval in words; empty where it is missing.

    >>> interval({"low": 0.43, "high": 0.57}), interval({"low": 1.18342, "high": 1.21}, share=False)
    ('43–57', '1.18–1.21')
    """
    if figure is None or figure["low"] is None:
        return ""
    if share:
        return f"{100 * figure['low']:.0f}–{100 * figure['high']:.0f}"
    low, high = (_plain(figure[end]) for end in ("low", "high"))
    return f"{low} to {high}" if figure["low"] < 0 else f"{low}–{high}"


def _plain(value: float, *, digits: int = 3) -> str:
    """A number without an exponent where it is large, and with a real minus sign."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}").replace("-", "−")


def large(count: int) -> str:
    """A count in thousands, millions or billions, two or three digits.

    >>> large(950), large(604_672), large(1_234_567), large(8_030_000_000)
    ('950', '605 k', '1.23 M', '8.03 B')
    """
    for size, unit in ((1e9, " B"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def p_value(value: float) -> str:
    """A p-value in words, never as a bare zero.

    >>> p_value(0.04213), p_value(0.00001)
    ('= 0.042', '< 0.001')
    """
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"


def visible(text: str) -> str:
    r"""Text with control and direction-changing characters spelled out, so that none can act on the page.

    >>> visible("a\x00b\u202ec\nd")
    'a\\x00b\\u202ec\nd'
    """
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs"} or character == "\u200d"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )

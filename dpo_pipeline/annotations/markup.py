"""Responses that came as a web page's source: a platform's rich-text editor exported what it keeps inside."""

import re

_WRAPPED = re.compile(
    r"\s*<(p|div|span|ul|ol|table|section|article|h[1-6]|body|html)\b[^<>]*>.*</\w+>\s*\Z", re.DOTALL | re.IGNORECASE
)
_ESCAPED = re.compile(r"&(?:lt|gt|amp|quot|nbsp|apos|#\d{1,5}|#x[0-9a-fA-F]{1,4});")


def is_markup(text: str) -> bool:
    """Whether a text is wrapped in tags as a whole, or holds entities (`&nbsp;`) outside of code.

    >>> is_markup("<p>Yes.</p><p>It is.</p>"), is_markup("Use `<p>` for a paragraph."), is_markup("Tom &amp; Ann")
    (True, False, True)
    """
    return (text.lstrip()[:1] == "<" and _WRAPPED.match(text) is not None) or (
        "&" in text and "`" not in text and "<" not in text and _ESCAPED.search(text) is not None
    )

"""The page is self-contained, has no script, and nothing that models or annotators wrote can act on it."""

import re
from html.parser import HTMLParser

import pytest

from dpo_pipeline.evaluation import charts
from dpo_pipeline.evaluation.first_screen import draw_first_screen
from dpo_pipeline.evaluation.page import render_page
from dpo_pipeline.evaluation.wording import visible

HOSTILE = (
    "</p></style><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"
    "<a href='javascript:alert(4)'>x</a> data:text/html,<b> {{ 7*7 }} {% raw %} $\\frac{1}{0}$ \u202etxt\x00"
)
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "section", "h1", "h2", "h3", "p", "span"),
    *("i", "b", "bdi", "small", "div", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure"),
    *("figcaption", "details", "summary", "dl", "dt", "dd", "svg", "line", "rect", "circle", "path", "text"),
}


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs


@pytest.fixture
def hostile_page(make_world, speakers, monkeypatch):
    world = make_world(hostile=HOSTILE)
    speakers["dpo"].replies = lambda at, question: HOSTILE + question
    world.evaluate(speakers, monkeypatch)
    return world.page()


def test_no_script_and_only_known_tags(hostile_page):
    page = Tags()
    page.feed(hostile_page)
    assert "<script" not in hostile_page.lower()
    assert page.tags <= ALLOWED
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"href", "src", "srcset"}]


def test_hostile_text_is_shown_as_text(hostile_page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile_page
    assert "{{ 7*7 }}" in hostile_page
    assert "\\u202etxt\\x00" in hostile_page
    assert "\u202e" not in hostile_page
    assert "\x00" not in hostile_page


def test_the_content_security_policy_comes_before_any_style(hostile_page):
    policy = "default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;; img-src data:"
    plain = policy.replace("&#39;", "'")
    assert f'content="{plain}"' in hostile_page
    assert hostile_page.index("Content-Security-Policy") < hostile_page.index("<style")


def test_nothing_is_fetched_from_outside(hostile_page):
    assert not re.search(r"""url\(|@import|(?:src|href)\s*=""", hostile_page.split("<main>")[0])


def test_the_page_is_made_from_the_report_alone(make_world, speakers, monkeypatch):
    world = make_world(pair_count=80)
    world.evaluate(speakers, monkeypatch)
    assert render_page(world.report()) == world.page()


def test_control_characters_are_spelled_out():
    assert visible("a\u2066b\u200bc\x1b[31m") == "a\\u2066b\\u200bc\\x1b[31m"
    assert visible("line\nnext\ttab \U0001f600") == "line\nnext\ttab \U0001f600"
    assert visible("\ud800") == "\\ud800"


def test_chart_labels_are_escaped():
    figure = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 9}
    rows = [{"label": "<script>", "note": "&", "figures": {"dpo": figure}, "family": "</svg><b>"}]
    drawn = charts.interval_rows(rows, {"dpo": 1}, title='"><script>')
    assert "<script" not in drawn
    assert "&lt;script&gt;" in drawn
    assert "<b>" not in drawn


def test_charts_of_nothing_do_not_crash():
    assert "nothing to show" in charts.overlaid_histograms({"edges": [], "counts": {}}, {}, axis="x")
    assert "<svg" in charts.length_strips({"win": [], "tie": [], "loss": []})
    judge = {"judge": "j", "opponent": "sft", "wins": 0, "ties": 0, "losses": 0}
    assert "no usable answer" in charts.outcome_bars([judge])
    missing = {"value": None, "low": None, "high": None, "count": 0}
    rows = [{"label": "a", "note": "", "figures": {"dpo": missing}}]
    assert "not measured" in charts.interval_rows(rows, {"dpo": 1}, title="t")


def test_the_picture_takes_hostile_words_for_words(make_world, speakers, monkeypatch, tmp_path):
    """Names and reasons with mathematics, markup, control and direction characters are drawn, never interpreted."""
    world = make_world(pair_count=80)
    world.evaluate(speakers, monkeypatch)
    report = world.report()
    report["rubric"]["passed"] = HOSTILE
    report["decision"]["reason"] = HOSTILE * 20
    report["judges"][0]["opponent"] = "$\\frac{"
    draw_first_screen(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

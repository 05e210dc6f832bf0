"""The pictures of the docs, taken by the browser from the real servers, after `test_ui.py` has filled them.

`DPO_PIPELINE_PICTURES=docs/images` writes them there; `DPO_PIPELINE_PICTURES_HOME=home` takes them from a copy of a
home that `make demo` made.
"""

import os
import re
from pathlib import Path

import pytest
from chromium import Chromium

from resources.servers import GROUPS, graph_path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LARGEST = 300_000  # bytes: the pictures are cloned with the code


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """The folder the pictures go to."""
    asked = os.environ.get("DPO_PIPELINE_PICTURES")
    return Path(asked) if asked else tmp_path_factory.mktemp("album")


def check(picture, browser):
    """No picture names a folder of this machine, and none is large."""
    assert re.findall(r"/(?:tmp|home|root|work|Users|var)/\S*", browser.seen()) == []
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert 10_000 < picture.stat().st_size < LARGEST


def test_the_graph(shown, album):
    with Chromium(width=1500, height=1500, scale=1.25) as browser:
        browser.open(f"{shown.dagster}{graph_path()}")
        for group in GROUPS:
            browser.wait_for(group)
        browser.click("Hide navigation")
        browser.open(f"{shown.dagster}{graph_path()}")
        for group in GROUPS:
            browser.wait_for(group)
        browser.settle()
        browser.picture(album / "graph.png", of="foreignObject")
        check(album / "graph.png", browser)


def test_the_curves_of_a_training_on_its_assets_page(shown, album):
    with Chromium(width=1440, height=1200) as browser:  # as wide as a laptop; it is scrolled downwards
        browser.open(f"{shown.dagster}/assets/dpo_checkpoint")
        browser.wait_for("curves")
        browser.settle()
        browser.click("[Show Markdown]")
        browser.wait_until("[...document.images].some(image => image.complete && image.naturalWidth > 500)")
        browser.settle()  # it is faded in
        sides = "(box => [box.left, box.right])(document.querySelector({}).getBoundingClientRect())"
        left, right = browser.evaluate(sides.format("'[role=dialog] img'"))
        assert browser.evaluate("document.querySelector('[role=dialog] img').naturalWidth") == pytest.approx(
            right - left
        )
        from_left, to_right = browser.evaluate(sides.format("'[role=dialog]'"))
        assert from_left <= left < right <= to_right, "a part of the picture is cut off"
        browser.picture(album / "curves.png", of="[role=dialog]", margin=0)
        assert "curves" in browser.seen()
        check(album / "curves.png", browser)


def test_the_first_screen_of_the_report(shown, album):
    report = shown.home.latest("evaluation_report")
    with Chromium(width=1200, height=640) as browser:
        browser.open(f"{shown.pages}/evaluation_report/{report.digest}/report.html")
        browser.wait_for("dpo against sft")
        browser.picture(album / "report.png")
        check(album / "report.png", browser)

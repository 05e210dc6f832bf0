"""The annotator report as a page: self-contained, no script, every text escaped."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.preferences.annotator_figures import shown_annotators
from dpo_pipeline.preferences.noise import noise_sentence

TEMPLATES = Path(__file__).parent / "templates"
SIGNS = {
    "disagrees": "disagrees with the others",
    "picks_by_position": "picks by position",
    "picks_by_length": "picks by length",
    "too_fast": "faster than reading",
    "one_justification": "one justification for most",
    "short_justifications": "justifies in a word or two",
}
AGREEMENT_WORDS = (
    (0.8, "agree reliably"),
    (0.667, "agree fairly"),
    (0.4, "agree moderately"),
    (0.2, "agree weakly"),
)


def render_page(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The whole page as text; equal reports give equal pages.

    Args:
        report: The values of report.json.
        pictures: The bytes of the pictures `annotator_figures.draw_all` makes.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "decimal": _decimal}
    sources = {
        name: "data:image/png;base64," + base64.b64encode(picture).decode() for name, picture in pictures.items()
    }
    first = sorted(report["annotators"], key=lambda row: (not row["suspected"], row["annotator"]))
    template = environment.get_template("annotators.html.j2")
    return template.render(
        report=report,
        annotators=first,
        pictures=sources,
        signs=SIGNS,
        headline=headline(report),
        noise="L" + noise_sentence(report["label_noise"])[1:] + ".",
        drawn=len(shown_annotators(report)),
    )


def headline(report: Mapping[str, Any]) -> str:
    """How well the judgments agree, in one sentence.

    Krippendorff (Content Analysis, 2004) relies on an alpha of 0.8 and draws tentative conclusions from 0.667; most
    preferences lie below, for which the lower words are ours.
    """
    alpha = report["overall"]["alpha_nominal"]
    named = sum(bool(row["suspected"]) for row in report["annotators"])
    people = "nobody stands out" if not named else f"{named:,} annotator{'s' * (named > 1)} to look at again"
    if alpha is None:
        return f"No two judgments meet on one pair: agreement is unknown, {people}"
    words = next((words for least, words in AGREEMENT_WORDS if alpha >= least), "hardly agree")
    return f"Annotators {words} (alpha {alpha:.2f}), {people}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _decimal(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

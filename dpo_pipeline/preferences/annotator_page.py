"""The annotator report as a page: self-contained, no script, every text escaped."""

import base64
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.preferences.annotator_figures import shown_annotators
from dpo_pipeline.preferences.noise import noise_sentence

MOST_CARDS = 24
"""Annotators to look at again that are shown with their figures; the others are the first in the table."""
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
    first = sorted(report["annotators"], key=_by_weight)
    named = [row for row in first if row["suspected"]]
    drawn = shown_annotators(report)
    template = environment.get_template("annotators.html.j2")
    return template.render(
        report=report,
        annotators=first,
        pictures=sources,
        signs=SIGNS,
        headline=headline(report),
        cards=[{**row, "said": _said(row)} for row in named[:MOST_CARDS]],
        named=len(named),
        raised=Counter(sign for row in named for sign in row["suspected"]).most_common(),
        noise="L" + noise_sentence(report["label_noise"])[1:] + ".",
        drawn=len(drawn),
        compared=sum(row["agreement"] is not None for row in drawn),
    )


def _by_weight(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Whom to look at first: who disagrees, then who shows most signs, then who agrees least."""
    agreement = 2.0 if row["agreement"] is None else row["agreement"]
    return ("disagrees" not in row["suspected"], -len(row["suspected"]), agreement, row["annotator"])


def _said(row: Mapping[str, Any]) -> str:
    """The figures that bear on why someone is named, and how much they judged."""

    def share(name: str) -> str:
        low, high = (_percent(row[f"{name}_{end}"]) for end in ("low", "high"))
        return f"{_percent(row[name if name in row else f'{name}_share'])} ({low} to {high})"

    said = [f"{row['judgments']:,} judgments"]
    if row["agreement"] is None:
        said.append("nobody else judged these pairs")
    else:
        said.append(f"agrees in {share('agreement')} of {row['comparable']:,} comparable")
    of_signs = {
        "picks_by_position": lambda: f"prefers what stood first in {share('first')}",
        "picks_by_length": lambda: f"prefers the longer one in {share('longer')}",
        "too_fast": lambda: (
            f"{_decimal(row['seconds_median'], 1)} s each, {_percent(row['too_fast_share'])} faster than reading"
        ),
        "one_justification": lambda: (
            f"the same words in {_percent(row['justification_top_share'])} of {row['justifications']:,} justifications"
        ),
        "short_justifications": lambda: (
            f"fewer than three words in {_percent(row['justification_short_share'])} of {row['justifications']:,}"
        ),
    }
    return "; ".join([*said, *(of_signs[sign]() for sign in row["suspected"] if sign in of_signs)])


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
    return "–" if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no -0.00

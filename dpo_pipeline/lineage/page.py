"""The audit as one self-contained page: no script, everything escaped, fit for print."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.evaluation.charts import curve
from dpo_pipeline.lineage.graph import draw_chain

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_FAULTS = 20
"""Faults of one check that the page lists; the JSON lists all."""


def render_page(audit: Mapping[str, Any]) -> str:
    """The whole page as text; equal audits give equal pages.

    Args:
        audit: As `describe_audit` returns it or as read back from its JSON.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    speeds = {
        row["digest"]: curve(
            [(step, speed / 1_000) for step, speed in row["speeds"]], title="Thousand tokens a second", place=0
        )
        for row in audit.get("training", [])
        if len(row.get("speeds", [])) > 1
    }
    picture = Markup(draw_chain(audit["chain"])) if audit["chain"] else None  # noqa: S704 - the picture escapes its own
    return environment.get_template("audit.html.j2").render(
        audit=audit, picture=picture, speeds=speeds, shown=SHOWN_FAULTS
    )


def render_chain(audit: Mapping[str, Any]) -> str:
    """The chain alone as a page: the picture, and each artifact with its digest; no check is run or claimed.

    Args:
        audit: As for `render_page`.
    """
    return render_page({**audit, "verdict": "Lineage", "checks": []})

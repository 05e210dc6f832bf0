"""Baseline and challenger of a report figure by figure, as a table for a terminal."""

from collections.abc import Mapping
from typing import Any

from dpo_pipeline.evaluation.headline import against_others, cost, kicker, title
from dpo_pipeline.evaluation.wording import Figure, interval, number, percent

# Figure, path inside a report, whether it is a share. In a path None stands for the model's name and "judged" for the
# decoding that was judged.
FIGURES: tuple[tuple[str, tuple[str | None, ...], bool], ...] = (
    ("Replies that meet every rule", ("generations", None, "judged", "passed"), True),
    ("Ranking accuracy", ("preferences", None, "ranking_accuracy"), True),
    ("Accuracy of the implicit reward", ("preferences", None, "against_reference", "implicit_accuracy"), True),
    ("Chosen reply fell", ("preferences", None, "against_reference", "chosen_fell"), True),
    ("KL from the baseline, nats a token", ("divergence", None, "kl_per_token"), False),
    ("Perplexity on demonstrations", ("perplexity", None), False),
    ("Words per reply", ("generations", None, "judged", "words"), False),
    ("Repeated 4-grams", ("generations", None, "judged", "repetition"), True),
    ("Refusals", ("generations", None, "judged", "refusals"), True),
)


def report_text(report: Mapping[str, Any]) -> str:
    """A report's verdict, figures with 95 % intervals, judges and warnings, for a terminal.

    Args:
        report: The values of report.json.
    """
    names = (report["baseline"], report["challenger"])
    lines = [f"{report['decision']['words']}. {title(report)}", report["decision"]["reason"], kicker(report)]
    lines += [
        f"Against {each['opponent']}: {each['words'].lower()}. {each['reason']}" for each in against_others(report)
    ]
    lines += ["", f"{'':36}{names[0]:>24}{names[1]:>24}"]
    for label, path, is_share in FIGURES:
        cells = [_cell(_figure(report, path, name), is_share=is_share) for name in names]
        lines.append(f"{label:36}{cells[0]:>24}{cells[1]:>24}")
    for judge in report["judges"]:
        rate, even = (_cell(judge[name], is_share=True) for name in ("win_rate", "length_controlled_win_rate"))
        lines.append(f"{judge['judge']}: {names[1]} against {judge['opponent']} wins {rate}; at equal length {even}")
    lines += [f"Note: {_printable(warning)}" for warning in report["warnings"]]
    return "\n".join([*lines, *filter(None, [cost(report)])])


def _figure(report: Mapping[str, Any], path: tuple[str | None, ...], model: str) -> Figure | None:
    value: Any = report
    for step in path:
        key = {None: model, "judged": report["judged_decoding"]}.get(step, step)
        value = (value or {}).get(key)
    return value


def _cell(figure: Figure | None, *, is_share: bool) -> str:
    shown = percent(figure) if is_share else number(figure)
    span = interval(figure, share=is_share)
    return f"{shown} ({span})" if span else shown


def _printable(text: str) -> str:
    """Without control characters: nothing a model or an annotator wrote acts on the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)

"""A decision of the gate as a page of Markdown: what was decided, why, and every condition that was looked at."""

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = {
    "promoted": "Promoted",
    "promoted_by_hand": "Promoted by hand",
    "is_champion": "Is champion already",
    "waits_for_a_person": "Better; waits for a person",
    "not_better": "Not promoted: not better",
    "not_enough_evidence": "Not promoted: not enough evidence",
    "blocked_by_a_check": "Not promoted: a check failed",
    "rolled_back_before": "Not promoted: its place was taken away before",
}
MARKS = {True: "holds", False: "BROKEN", None: "could not be told"}


def decision_as_markdown(decision: Mapping[str, Any]) -> str:
    """The page; equal decisions give equal pages.

    Args:
        decision: The values of decision.json.
    """
    verdict, by_hand = decision["verdict"], decision["by_hand"]
    against = "today's champion" if decision["opponent"] == "champion" else "SFT, which has the champion's weights"
    if decision["champion"] is None:
        against = "SFT, for there is no champion yet"
    elif decision["challenger"] == decision["champion"]:
        against = "whom it replaced" if decision["opponent"] == "champion" else "SFT, for it is the first champion"
    lines = [
        f"## {HEADINGS[decision['ruling']]}",
        _plain(decision["reason"]),
        f"- challenger `{decision['challenger']}`",
        f"- champion until now `{decision['champion'] or 'none'}`",
        f"- compared with {against}, in the report `{decision['report']}`",
        f"- the rule says: **{verdict['words']}**. {_plain(verdict['reason'])} (p = {verdict['p_value']:.3g})",
    ]
    if by_hand is not None:
        lines.append(f"- decided by {_plain(by_hand['person']) or 'a person who gave no name'}")
    lines += [f"- **warning**: {_plain(warning)}" for warning in decision["warnings"]]
    lines += [f"- was champion and its place was taken away: {_plain(reason)}" for reason in decision["withdrawn"]]
    lines.append(f"- guarded: {_listed(decision['guarded'])}; not guarded: {_listed(decision['not_guarded'])}")
    lines += ["", "| condition | found | allowed | |", "|---|---|---|---|"]
    lines += [
        f"| {_cell(check['name'])} | {_cell(check['found'])} | {_cell(check['allowed'])} | {_mark(check)} |"
        for check in verdict["checks"]
    ]
    for each in decision["conditions"]:
        name = each["name"].replace("_", " ")
        mark = MARKS[each["held"]] if each["held"] is not False or each["forbids"] else "WARNS"
        lines.append(f"| {name} | {_cell(each['found'])} | {_cell(each['expected'])} | {mark} |")
    lines += ["", "The rule:", "", *(f"- {_plain(sentence)}" for sentence in decision["rule"])]
    return "\n".join([lines[0], "", lines[1], "", *lines[2:]]) + "\n"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names) or "none"


def _mark(check: Mapping[str, Any]) -> str:
    return MARKS[check["held"]] if check.get("is_guarded", True) else "not guarded"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """A person's text as one line in which nothing acts as HTML or as a link of Markdown."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    for sign, word in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("[", "&#91;"), ("`", "'"), ("!", "&#33;")):
        line = line.replace(sign, word)
    return line

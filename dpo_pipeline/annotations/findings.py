"""What a dry run over a drop found, in a screenful."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from dpo_pipeline.annotations.sinks import UNREAD

_ORDERS = {"ranks", "ratings", "ranking", "rating", "rank"}
RULE = ("match", "encoding", "fill_down", "mapping", "scale", "vocabulary", "time_unit", "day_first")


def is_usable(findings: Mapping[str, Any]) -> bool:
    """Whether anything in the drop became a judgment or a demonstration."""
    return findings["judgments"] + findings["demonstrations"] > 0


def findings_as_text(findings: Mapping[str, Any]) -> str:
    """The findings of `check_drop`, per file, with examples of what is rejected and a proposal where one helps."""
    judgments, demonstrations = findings["judgments"], findings["demonstrations"]
    rejected = sum(findings["rejected"].values())
    records = findings["records_in"]
    kept = f"{_count(judgments, 'judgment')}, {_count(demonstrations, 'demonstration')}"
    lines = [f"{_count(records, 'record')}: {kept}, {rejected:,} rejected"]
    for name, file in findings["files"].items():
        how = "not read" if file["source"] == UNREAD else f"read as {file['source']}"
        lines += ["", f"{name}  {how}"]
        lines += [f"  {line}" for line in _file(file)]
    proposals = proposals_of(findings)
    if proposals:
        lines += ["", "This drop.yaml may fit: correct it, answer what it asks, and put it beside the files."]
        lines += ["(`dpo-pipeline drop check FOLDER --propose` prints nothing else.)", ""]
        lines += drop_yaml_of(proposals).splitlines()
    if not is_usable(findings):
        lines += ["", "Nothing in this drop can be used as it is."]
    return "\n".join(lines)


def proposals_of(findings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rules proposed for files that cannot be read without one."""
    return [file["proposal"] for file in findings["files"].values() if "proposal" in file]


def drop_yaml_of(proposals: Sequence[Mapping[str, Any]]) -> str:
    """A whole `drop.yaml` from proposed rules; what a person must answer stands above each as a comment."""
    if not proposals:
        return "# Every file is recognised: no drop.yaml is needed.\n"
    rules = [_rule(proposal) for proposal in proposals]
    lines = ["files:"] if any(is_whole for is_whole, _ in rules) else []
    for _, text in rules:
        lines += text
    return "\n".join(lines) + "\n"


def _rule(proposal: Mapping[str, Any]) -> tuple[bool, list[str]]:
    """Whether a rule names all it needs, and its lines below what is asked; as comments where it does not."""
    rule = {name: proposal[name] for name in RULE if proposal.get(name)}
    mapping = {name: value for name, value in proposal.get("mapping", {}).items() if value}
    is_whole = "mapping" not in proposal or (
        "prompt" in mapping and ({"response_a", "verdict"} <= mapping.keys() or bool(_ORDERS & mapping.keys()))
    )
    if not is_whole:
        rule["columns, to be used in the mapping"] = proposal["columns"]
    if "mapping" in proposal:
        rule["mapping"] = mapping
    text = yaml.safe_dump([rule], sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    questions = [f"  # {question}" for question in proposal["open_questions"]]
    return is_whole, questions + [f"  {line}" if is_whole else f"  # {line}" for line in text.splitlines()]


def _count(number: int, what: str) -> str:
    """So many of something.

    >>> _count(1, "record"), _count(1_000, "record")
    ('1 record', '1,000 records')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def _who(file: Mapping[str, Any]) -> str:
    """How many people judged, as far as the export says."""
    if not file["annotators"]:
        return "no annotator is named: whose work is whose cannot be told"
    said = f"by {_count(file['annotators'], 'annotator')}"
    if count := file["without_annotator"]:
        said += f"; {_count(count, 'judgment')} without one"
    return f"{said}; {file['annotators_are']}" if file["annotators_are"] else said


def _file(file: Mapping[str, Any]) -> Iterator[str]:
    kept = [_count(file[f"{name}s"], name) for name in ("judgment", "demonstration") if file[f"{name}s"]]
    yield f"{_count(file['records_in'], 'record')}: {', '.join(kept) or 'nothing usable'}"
    for choice, count in file["choices"].items():
        yield f"  {count:>8,}  {choice}"
    if file["judgments"]:
        yield _who(file)
    if count := file["with_markup"]:
        are = f"{count:,} judgments are" if count > 1 else "1 judgment is"
        yield f"{are} on responses in HTML (`<p>...</p>`, `&nbsp;`), learnt as it stands; export plain text or Markdown"
    for what, count in file["values_left_out"].items():
        yield f"left out {count:,}: {what.replace('_', ' ')}, of records that are kept"
    for fault in file["rejected"]:
        yield f"rejected {fault['count']:,}: {fault['reason']}. {fault['sentence']}"
        details: set[str] = set()
        for example in fault["examples"]:
            if example["detail"] in details:
                continue
            details.add(example["detail"])
            yield f"  record {example['record_number']}: {example['detail']}  {example['excerpt']}"

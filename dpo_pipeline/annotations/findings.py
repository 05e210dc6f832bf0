"""What a dry run over a drop found, in a screenful."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml


def is_usable(findings: Mapping[str, Any]) -> bool:
    """Whether anything in the drop became a judgment or a demonstration."""
    return findings["judgments"] + findings["demonstrations"] > 0


def findings_as_text(findings: Mapping[str, Any]) -> str:
    """The findings of `check_drop`, per file, with examples of what is rejected and a proposal where one helps."""
    judgments, demonstrations = findings["judgments"], findings["demonstrations"]
    rejected = sum(findings["rejected"].values())
    records = findings["records_in"]
    lines = [f"{records:,} records: {judgments:,} judgments, {demonstrations:,} demonstrations, {rejected:,} rejected"]
    for name, file in findings["files"].items():
        lines += ["", f"{name}  read as {file['source']}"]
        lines += [f"  {line}" for line in _file(file)]
    if not is_usable(findings):
        lines += ["", "Nothing in this drop can be used as it is."]
    return "\n".join(lines)


def _file(file: Mapping[str, Any]) -> Iterator[str]:
    kept = [f"{file[name]:,} {name}" for name in ("judgments", "demonstrations") if file[name]]
    yield f"{file['records_in']:,} records: {', '.join(kept) or 'nothing usable'}"
    for choice, count in file["choices"].items():
        yield f"  {count:>8,}  {choice}"
    for fault in file["rejected"]:
        yield f"rejected {fault['count']:,}: {fault['reason']}. {fault['sentence']}"
        for example in fault["examples"]:
            yield f"  record {example['record_number']}: {example['detail']}  {example['excerpt']}"
    if "proposal" in file:
        yield "this drop.yaml may fit; correct it, and put it beside the file:"
        yield from yaml.safe_dump(file["proposal"], sort_keys=False, allow_unicode=True).splitlines()

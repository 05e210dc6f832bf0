"""Writes docs/reference.md from the code: commands, settings, tables, reasons: `python docs/generate.py [--check]`."""

import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import click
import pyarrow as pa
from pydantic import BaseModel

from dpo_pipeline.annotations import schemas as annotation_schemas
from dpo_pipeline.annotations.drop_rules import FileRule
from dpo_pipeline.annotations.formats import kway
from dpo_pipeline.annotations.reasons import Reason
from dpo_pipeline.annotations.registry import FORMATS
from dpo_pipeline.annotations.sources import ARCHIVES
from dpo_pipeline.annotations.streams import COMPRESSIONS, KINDS
from dpo_pipeline.cli import commands
from dpo_pipeline.core.tables import describe
from dpo_pipeline.dpo import schemas as dpo_schemas
from dpo_pipeline.evaluation import schemas as evaluation_schemas
from dpo_pipeline.modeling import kept_tokens
from dpo_pipeline.preferences import schemas as preference_schemas
from dpo_pipeline.preferences.cleaning import RULES
from dpo_pipeline.preferences.reasons import Reason as PairReason
from dpo_pipeline.preferences.settings import RuleActions
from dpo_pipeline.profiles import Profile, load_profile, profile_names

TARGET = Path(__file__).with_name("reference.md")
FORMATS_INTRODUCTION = (
    f"Files end in `{'`, `'.join(KINDS)}`, plain or with `{'`, `'.join(COMPRESSIONS)}` behind, or are members of "
    f"archives (`{'`, `'.join(ARCHIVES)}`). The format is told from the content; `format` in `drop.yaml` states it."
)
DROP_YAML_INTRODUCTION = (
    "Lies among the files of a drop and says what the files do not. What stands at its top level holds for every file, "
    "except where `files:` lists rules of their own: for a file the first whose `match` fits its name. `dpo-pipeline "
    "drop check FOLDER` says what reading would give, and proposes a mapping where one is needed."
)
RULES_INTRODUCTION = (
    "`preferences.rules` in the profile says what follows from each rule's find: `off`, `flag` (the pair is kept and "
    "carries the rule's id in `flags`), `drop` (it is left out of training with the id as its reason), for personal "
    "data also `redact`. A rule's version is raised when it would find other pairs than before."
)
PAIRS_INTRODUCTION = (
    "`excluded_pairs` has one reason per pair: one of these, or the id of a cleaning rule that drops. Those "
    "that say *judgments only* stand in the books of the judgments."
)


def reference() -> str:
    """The whole page."""
    parts = ["# Reference", "Written by `make docs` from the code; do not edit.", "## Commands", *_commands()]
    parts += ["## Profiles", "\n".join(f"- `{name}`: {load_profile(name).description}" for name in profile_names())]
    parts += ["## Settings", *_settings(Profile, "")]
    parts += ["## Export formats", FORMATS_INTRODUCTION, _formats()]
    parts += ["## drop.yaml", DROP_YAML_INTRODUCTION, *_settings(FileRule, "")]
    parts += ["## Rankings and ratings as pairs", _paragraph(kway.__doc__)]
    parts += ["## Tables", *_tables()]
    parts += ["## Reasons a record is rejected", *_reasons(Reason)]
    parts += ["## Cleaning rules", RULES_INTRODUCTION, _rules()]
    parts += ["## Reasons a pair is left out", PAIRS_INTRODUCTION, *_reasons(PairReason)]
    return "\n\n".join(parts) + "\n"


def _commands(group: click.Group = commands, path: str = "dpo-pipeline") -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path} {name}")
        else:
            context = click.Context(command, info_name=f"{path} {name}")
            yield f"```\n{command.get_help(context)}\n```"


def _settings(model: type[BaseModel], path: str) -> Iterator[str]:
    rows, nested = [], []
    for name, field in model.model_fields.items():
        inner = next((kind for kind in _kinds(field.annotation) if issubclass(kind, BaseModel)), None)
        if inner is not None:
            nested.append((inner, f"{path}{name}."))
        default = "" if field.is_required() or inner else f"`{field.default}`"
        rows.append(f"| `{path}{name}` | {default} | {' '.join((field.description or '').split())} |")
    yield "\n".join(["| setting | default | meaning |", "|---|---|---|", *rows])
    for inner, prefix in nested:
        yield f"### `{prefix.rstrip('.')}`\n\n{(inner.__doc__ or '').splitlines()[0]}"
        yield from _settings(inner, prefix)


def _kinds(annotation: object) -> list[type]:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return [kind for kind in candidates if isinstance(kind, type) and not hasattr(kind, "__origin__")]


def _tables() -> Iterator[str]:
    for module in (annotation_schemas, preference_schemas, kept_tokens, dpo_schemas, evaluation_schemas):
        for schema in vars(module).values():
            if isinstance(schema, pa.Schema):
                facts = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
                yield f"### `{facts['table']}`, version {facts['version']}"
                rows = [f"| `{c['name']}` | {c['type']} | {c['description']} |" for c in describe(schema)]
                yield "\n".join(["| column | type | meaning |", "|---|---|---|", *rows])


def _reasons(reasons: type[StrEnum]) -> Iterator[str]:
    rows = [f"| `{reason.value}` | {getattr(reason, 'sentence', '')} |" for reason in reasons]
    yield "\n".join(["| reason | meaning |", "|---|---|", *rows])


def _formats() -> str:
    rows = []
    for name, module in FORMATS.items():
        title, _, rest = (module.__doc__ or "").strip().partition("\n")
        links = " ".join(f"<{link}>" for link in re.findall(r"https?://[^\s,)]+[^\s,).;:]", rest))
        rows.append(f"| `{name}` | {title} | {links} |")
    return "\n".join(["| format | what it is | source |", "|---|---|---|", *rows])


def _paragraph(text: str | None) -> str:
    """A docstring as Markdown: each of its paragraphs on one line."""
    return "\n\n".join(" ".join(part.split()) for part in (text or "").strip().split("\n\n"))


def _rules() -> str:
    rows = [
        f"| `{rule.name}` | {rule.version} | {' '.join((about.description or '').split())} | `{about.default}` |"
        for rule in RULES
        for about in [RuleActions.model_fields[rule.name]]
    ]
    return "\n".join(["| rule | version | finds pairs of which | by default |", "|---|---|---|---|", *rows])


def main() -> int:
    """Write the page, or with --check say whether it is current."""
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/reference.md is not what the code says; run `make docs`.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())

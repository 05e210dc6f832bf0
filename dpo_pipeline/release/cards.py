"""Model card and dataset card as the Hugging Face hub reads them; every number is taken from an artifact.

Front matter: huggingface.co/docs/hub/model-cards and huggingface.co/docs/hub/datasets-cards.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dpo_pipeline.core.tables import columns_of
from dpo_pipeline.release.contents import Contents
from dpo_pipeline.release.settings import ReleaseSettings

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = {
    "sft/passed": "replies within the rubric, SFT",
    "dpo/passed": "replies within the rubric, DPO",
    "gain_on_target": "gain of DPO on SFT in the target figure",
    "dpo/ranking_accuracy": "held-out pairs whose chosen reply is the likelier, DPO",
    "implicit_accuracy": "held-out pairs whose chosen reply gained more",
    "win_rate": "win rate of DPO against SFT",
    "length_controlled_win_rate": "win rate of DPO against SFT, length controlled",
    "kl_per_reply": "divergence from SFT, nats per reply",
    "share_chosen_fell": "held-out pairs whose chosen reply became less likely",
}
SHOWN_SETTINGS = (
    "loss",
    "beta",
    "label_smoothing",
    "epochs",
    "batch_size",
    "learning_rate",
    "rank",
    "alpha",
    "variant",
    "seed",
)
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}


def write_model_card(
    path: Path,
    *,
    base: str,
    digests: Mapping[str, str],
    pair_counts: Mapping[str, int],
    evaluation: Mapping[str, Any],
    promotion: Mapping[str, Any],
    training: Mapping[str, Any],
    release: ReleaseSettings,
) -> None:
    """Write a Hugging Face model card.

    Args:
        path: The README.md to write.
        base: What the model was made from: a hub id, or words.
        digests: Artifact digest by kind: checkpoint, pairs, report.
        pair_counts: Pairs per split.
        evaluation: The evaluation report's facts.
        promotion: Whether the gate promoted the checkpoint, how and why.
        training: Settings the checkpoint was trained with, by section.
        release: Name, licence, languages and intended use.
    """
    figures = list(_figures(evaluation))
    held_out = {"name": "held-out preference pairs", "type": "preference_pairs", "split": "held_out"}
    held_out["revision"] = digests["preference_pairs"]
    metrics = [
        {
            "type": figure["name"].replace("/", "_"),
            "name": figure["label"],
            "value": figure["value"],
            "args": {"low": figure["low"], "high": figure["high"], "level": 0.95},
        }
        for figure in figures
    ]
    result = {"task": {"type": "text-generation"}, "dataset": held_out, "metrics": metrics}
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": release.model_license,
        "language": list(release.languages),
        "tags": ["dpo", "dpo-pipeline"],
        **({"base_model": base} if _is_hub_id(base) else {}),
        **({"model-index": [{"name": release.name, "results": [result]}]} if metrics else {}),
    }
    values = {
        "base": base,
        "is_hub_id": _is_hub_id(base),
        "digests": digests,
        "pair_counts": pair_counts,
        "evaluation": evaluation,
        "figures": figures,
        "standing": _standing(promotion),
        "training": _shown(training),
        "release": release,
    }
    _write(path, "model_card.md.j2", front, values)


def write_dataset_card(
    path: Path, table: Path, contents: Contents, *, manifest: Mapping[str, Any], digest: str, release: ReleaseSettings
) -> None:
    """Write a Hugging Face dataset card beside `data/<split>.parquet`.

    Args:
        path: The README.md to write.
        table: One of the Parquet files, for the columns and their descriptions.
        contents: What the tables hold.
        manifest: Manifest of the preference_pairs artifact: settings and books.
        digest: Its digest.
        release: Name, licence, languages and intended use.
    """
    total = sum(contents.splits.values())
    files = [{"split": split, "path": f"data/{split}.parquet"} for split in contents.splits]
    front = {
        "pretty_name": f"{release.name}: preference pairs",
        "license": release.dataset_license,
        "language": list(release.languages),
        "task_categories": ["text-generation"],
        "size_categories": [next((name for least, name in SIZES.items() if total < least), "n>10M")],
        "tags": ["preference", "dpo", "rlhf", "human-feedback", "dpo-pipeline"],
        "configs": [{"config_name": "default", "data_files": files}],
    }
    values = {
        "contents": contents,
        "total": total,
        "columns": [{**column, "type": _in_words(column["type"])} for column in columns_of(table)],
        "books": manifest.get("books"),
        "settings": manifest["settings"].get("preferences", {}),
        "digest": digest,
        "release": release,
    }
    _write(path, "dataset_card.md.j2", front, values)


def _write(path: Path, template: str, front: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape([]),  # Markdown, not HTML; `_plain` sees every value
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    body = environment.get_template(template).render(values)
    path.write_text(f"---\n{yaml.safe_dump(dict(front), sort_keys=True)}---\n\n{body.rstrip()}\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    """A value as one line of a card in which no HTML, link or picture is at work and no table breaks."""
    if not isinstance(value, str):
        return value
    return " ".join(value.replace("<", "&lt;").replace("[", "&#91;").replace("|", "/").split())


def _in_words(kind: str) -> str:
    """A type without angle brackets.

    >>> _in_words("list<element: struct<role: string not null, content: string>>")
    'list of {role: string, content: string}'
    """
    kind = kind.replace(" not null", "")
    while found := re.search(r"(list<(?:element|item): |struct<)([^<>]*)>", kind):
        inner = f"list of {found[2]}" if found[1].startswith("list") else f"{{{found[2]}}}"
        kind = f"{kind[: found.start()]}{inner}{kind[found.end() :]}"
    return kind


def _is_hub_id(base: str) -> bool:
    return base.count("/") == 1 and " " not in base


def _figures(evaluation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, label in FIGURES.items():
        if f"{name}/low" in evaluation:
            low, high = evaluation[f"{name}/low"], evaluation[f"{name}/high"]
            yield {"name": name, "label": label, "value": evaluation[name], "low": low, "high": high}


def _shown(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The settings a reader asks for first, wherever they stand."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _shown(value, f"{prefix}{name}.")
        elif name in SHOWN_SETTINGS:
            found.append((f"{prefix}{name}", value))
    return found


def _standing(promotion: Mapping[str, Any]) -> str:
    """One paragraph: champion by the rule, champion by hand, or not promoted."""
    if not promotion["promoted"]:
        return f"**Not promoted: this model is not for use.** {promotion['reason']}"
    how = "by a person's decision" if promotion["mode"] == "manual" else "by the stated rule"
    return f"**Champion, promoted {how}.** {promotion['reason']}"

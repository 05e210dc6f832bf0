"""From which columns of which table each column of a table is made, for the UI's column lineage."""

from collections.abc import Mapping

import dagster as dg

Made = Mapping[str, tuple[str, ...]]

PAIRS_FROM_JUDGMENTS: Made = {
    "pair_id": ("prompt", "response_a", "response_b"),
    "prompt_id": ("prompt",),
    "cluster_id": ("prompt",),
    "split": ("prompt", "drop"),
    "prompt": ("prompt",),
    "chosen": ("response_a", "response_b", "choice", "annotator", "votes"),
    "rejected": ("response_a", "response_b", "choice", "annotator", "votes"),
    "p_chosen": ("choice", "annotator", "votes"),
    "margin": ("strength", "choice", "votes"),
    "strength": ("strength", "votes"),
    "agreement": ("choice", "annotator", "votes"),
    "judgment_count": ("judgment_id", "annotator", "votes"),
    "annotator_count": ("annotator",),
    "judgment_ids": ("judgment_id",),
    "annotators": ("annotator",),
    "dimensions": ("dimensions", "choice"),
    "sources": ("source",),
    "drops": ("drop",),
    "group_id": ("group_id", "prompt"),
    "flags": ("prompt", "response_a", "response_b"),
    "sft_allowed": ("sft_allowed",),
}

REFERENCE_FROM_PAIRS: Made = {
    "pair_id": ("pair_id",),
    "split": ("split",),
    "key": ("prompt", "chosen", "rejected"),
    "chosen_logp": ("prompt", "chosen"),
    "rejected_logp": ("prompt", "rejected"),
    "chosen_tokens": ("prompt", "chosen"),
    "rejected_tokens": ("prompt", "rejected"),
}

LINEAGE: Mapping[str, tuple[str, Made]] = {
    "preference_pairs": ("judgments", PAIRS_FROM_JUDGMENTS),
    "reference_logprobs": ("preference_pairs", REFERENCE_FROM_PAIRS),
}


def column_lineage(asset: str) -> dict[str, dg.TableColumnLineage]:
    """Metadata that draws an asset's column lineage; empty for what is not made from a table's columns."""
    if asset not in LINEAGE:
        return {}
    source, made = LINEAGE[asset]
    columns = {
        column: [dg.TableColumnDep(asset_key=dg.AssetKey(source), column_name=name) for name in names]
        for column, names in made.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage(deps_by_column=columns)}


def columns_behind(asset: str) -> dict[str, str]:
    """The same as a sentence for each column: the open-source UI draws no column lineage."""
    if asset not in LINEAGE:
        return {}
    source, made = LINEAGE[asset]
    return {column: f"From {source}: {', '.join(names)}." for column, names in made.items()}

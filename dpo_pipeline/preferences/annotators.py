"""The annotator report: who judged how much, how well the judgments agree, and whose to look at again.

Pseudonyms only. The numbers stand in `report.json` and `annotators.parquet`; the page and the picture show them.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences.adding_up import counted
from dpo_pipeline.preferences.agreement import alpha_interval, krippendorff_alpha, raw_agreement
from dpo_pipeline.preferences.annotator_figures import draw_all
from dpo_pipeline.preferences.annotator_page import headline, render_page
from dpo_pipeline.preferences.behaviour import (
    Manners,
    describe_annotators,
    read_manners,
    suspicions,
    verdict_values,
)
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.consensus import dawid_skene
from dpo_pipeline.preferences.dimensions import DimensionVerdicts
from dpo_pipeline.preferences.identifiers import to_hex
from dpo_pipeline.preferences.noise import label_noise
from dpo_pipeline.preferences.personal_data import PERSONAL_DATA, redact
from dpo_pipeline.preferences.rankings import describe_rankings, responses_of
from dpo_pipeline.preferences.schemas import ANNOTATORS
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.sketch_tables import NO_TIME
from dpo_pipeline.preferences.texts import DropTables, read_texts
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.verdicts import Verdicts
from dpo_pipeline.preferences.write import EXCLUDED_FILE, PAIRS_FILE

EXAMPLES = 12
EXCERPT_CHARACTERS = 400
DAY = 86_400 * 1_000_000
"""In microseconds."""


def report_annotators(
    drops: Sequence[DropTables], pairs: Path, out: Path, *, settings: PreferenceSettings, reporter: Reporter
) -> Outcome:
    """Write `annotators.parquet`, `report.json`, `report.html` and the pictures it shows.

    Args:
        drops: Names and artifact folders, in order of arrival: those the pairs were built from.
        pairs: Folder of the preference_pairs artifact.
        out: An empty folder.
        settings: From when an annotator is suspected, and below how many judgments nothing is concluded.
        reporter: Told what was found.

    Returns:
        Counts of judgments and annotators; agreement as facts.
    """
    catalogue = Catalogue(drops)
    pair_count = len(catalogue.pairs.ids)
    file = VerdictFile.merge(catalogue, reporter)
    verdicts = file.take(0, pair_count)
    manners = read_manners(drops, verdicts)
    agreed = dawid_skene(counted(verdicts), pair_count, len(verdicts.annotators))
    columns = describe_annotators(catalogue, verdicts, manners, agreed, settings)
    suspected = suspicions(columns, settings)
    table = _table(verdicts, {**columns, "suspected": suspected})
    write_table(out / "annotators.parquet", table)

    report = {
        "overall": _overall(catalogue, verdicts, manners),
        "dimensions": _dimensions(file, verdicts),
        "by_drop": _by_drop(drops, verdicts),
        "by_week": _by_week(verdicts),
        "rankings": describe_rankings(responses_of(catalogue), catalogue.prompt, verdicts),
        "pairs": _pairs(pairs),
        "label_noise": _noise(catalogue, verdicts, pairs),
        "annotators": [_rounded(row) for row in table.to_pylist()],
        "disagreements": _disagreements(catalogue, verdicts),
        "limits": {
            "few_judgments": settings.few_judgments,
            "careless_agreement": settings.careless_agreement,
            "reading_words_per_minute": settings.reading_words_per_minute,
        },
    }
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    pictures = draw_all(report)
    for name, picture in pictures.items():
        (out / f"{name}.png").write_bytes(picture)
    (out / "report.html").write_text(render_page(report, pictures), encoding="utf-8")
    suspected_count = sum(bool(signs) for signs in suspected)
    reporter.say(f"{headline(report)}.")
    overall = report["overall"]
    return Outcome(
        counts={
            "judgments": len(verdicts),
            "annotators": len(table),
            "annotators_suspected": suspected_count,
            "annotators_with_few_judgments": int(columns["few_judgments"].sum()),
        },
        facts={name: overall[name] for name in ("alpha_nominal", "alpha_ordinal", "raw_agreement", "longer_share")},
    )


def _table(verdicts: Verdicts, columns: dict[str, Any]) -> pa.Table:
    columns = {"annotator": verdicts.annotators, **columns}
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in ANNOTATORS]
    return pa.Table.from_arrays(arrays, schema=ANNOTATORS)


def _overall(catalogue: Catalogue, verdicts: Verdicts, manners: Manners) -> dict[str, Any]:
    counted = verdicts.is_counted
    nominal, ordinal = verdict_values(verdicts)
    pair, side = verdicts.pair[counted], verdicts.side[counted]
    per_pair = np.bincount(np.bincount(pair, minlength=1))
    low, high = (catalogue.pairs.column(f"{which}_characters").astype(np.int64)[pair] for which in ("low", "high"))
    sided = (side != 0) & (low != high)
    longer = np.sign(low - high) == side
    known = manners.first_is_low[counted] >= 0
    first = (side > 0) == (manners.first_is_low[counted] == 1)
    return {
        "judgments": len(verdicts),
        "counted": int(counted.sum()),
        "without_annotator": int((verdicts.annotator < 0).sum()),
        "pairs": len(catalogue.pairs.ids),
        "pairs_with_two_or_more": int(per_pair[2:].sum()),
        "judgments_per_pair": {str(size): int(count) for size, count in enumerate(per_pair) if size and count},
        "alpha_nominal": _round(krippendorff_alpha(pair, nominal)),
        "alpha_nominal_interval": _interval(alpha_interval(pair, nominal)),
        "alpha_ordinal": _round(krippendorff_alpha(pair, ordinal, ordinal=True)),
        "alpha_ordinal_interval": _interval(alpha_interval(pair, ordinal, ordinal=True)),
        "raw_agreement": _round(raw_agreement(pair, nominal)),
        "tie_share": _share(side == 0, np.ones(len(side), bool)),
        "longer_share": _share(longer, sided),
        "length_and_strength": _spearman((low - high)[sided], ordinal[sided]),
        "first_share": _share(first, known & (side != 0)),
        "justified_share": _share(manners.reason[counted] != 0, np.ones(len(side), bool)),
    }


def _dimensions(file: VerdictFile, verdicts: Verdicts) -> list[dict[str, Any]]:
    entries = DimensionVerdicts.read(file, verdicts)
    counted = verdicts.is_counted[entries.verdict]
    rows = []
    for number, name in enumerate(entries.names):
        mine = counted & (entries.name == number)
        pair, strength = verdicts.pair[entries.verdict[mine]], np.round(entries.toward_low[mine]).astype(np.int64)
        sign = np.sign(strength)
        agrees = sign == verdicts.side[entries.verdict[mine]]
        rows.append(
            {
                "name": name,
                "judgments": int(mine.sum()),
                "alpha_nominal": _round(krippendorff_alpha(pair, sign)),
                "alpha_ordinal": _round(krippendorff_alpha(pair, strength, ordinal=True)),
                "raw_agreement": _round(raw_agreement(pair, sign)),
                "follows_verdict_share": _share(agrees, sign != 0),
            }
        )
    return rows


def _by_drop(drops: Sequence[DropTables], verdicts: Verdicts) -> list[dict[str, Any]]:
    return [
        {"name": drop.name, **_agreement_of(verdicts, verdicts.is_counted & (verdicts.drop == number))}
        for number, drop in enumerate(drops)
    ]


def _by_week(verdicts: Verdicts) -> list[dict[str, Any]]:
    """Agreement among judgments given in the same week, for weeks in which any was."""
    dated = verdicts.is_counted & (verdicts.time != NO_TIME)
    # 1970 began on a Thursday, three days after a Monday.
    week = np.where(dated, verdicts.time + 3 * DAY, 0) // (7 * DAY)
    return [
        {"name": str(np.datetime64(int(number) * 7 - 3, "D")), **_agreement_of(verdicts, dated & (week == number))}
        for number in np.unique(week[dated])
    ]


def _agreement_of(verdicts: Verdicts, mask: np.ndarray) -> dict[str, Any]:
    pair, side = verdicts.pair[mask], verdicts.side[mask]
    ordinal = (verdicts.side * verdicts.strength)[mask]
    return {
        "judgments": int(mask.sum()),
        "annotators": len(np.unique(verdicts.annotator[mask & (verdicts.annotator >= 0)])),
        "alpha_nominal": _round(krippendorff_alpha(pair, side)),
        "alpha_ordinal": _round(krippendorff_alpha(pair, ordinal, ordinal=True)),
        "raw_agreement": _round(raw_agreement(pair, side)),
    }


def _pairs(folder: Path) -> dict[str, Any]:
    """What the kept pairs look like, and why others were left out."""
    table = pq.read_table(folder / PAIRS_FILE, columns=["p_chosen", "agreement", "margin"])
    reasons = pq.read_table(folder / EXCLUDED_FILE, columns=["reason"]).column(0).value_counts()
    counts, _ = np.histogram(table.column("p_chosen").to_numpy(), bins=np.linspace(0.5, 1.0, 11))
    return {
        "kept": len(table),
        "p_chosen_histogram": counts.tolist(),
        "agreement_mean": _mean(table.column("agreement").to_numpy()),
        "margin_mean": _mean(table.column("margin").to_numpy()),
        "excluded": dict(sorted((entry["values"], entry["counts"]) for entry in reasons.to_pylist())),
    }


def _noise(catalogue: Catalogue, verdicts: Verdicts, folder: Path) -> dict[str, Any]:
    """The estimated share of flipped labels."""
    pair, side = verdicts.pair[verdicts.is_counted], verdicts.side[verdicts.is_counted]
    low, high = (np.bincount(pair[side == sign], minlength=len(catalogue.pairs.ids)) for sign in (1, -1))
    return label_noise(low, high, pq.read_table(folder / PAIRS_FILE, columns=["p_chosen"]).column(0).to_numpy())


def _disagreements(catalogue: Catalogue, verdicts: Verdicts) -> list[dict[str, Any]]:
    """Pairs with the most judgments on both sides, with the beginnings of their texts."""
    counted = verdicts.is_counted
    pair, side, count = verdicts.pair[counted], verdicts.side[counted], len(catalogue.pairs.ids)
    low, high = (np.bincount(pair[side == sign], minlength=count) for sign in (1, -1))
    contested = np.flatnonzero(np.minimum(low, high) > 0)
    order = np.lexsort((contested, -(low + high)[contested], -np.minimum(low, high)[contested]))
    some = contested[order[:EXAMPLES]]
    rows, b_is_low = catalogue.pairs.column("row")[some], catalogue.pairs.column("b_is_low")[some]
    examples: list[dict[str, Any]] = [{} for _ in some]
    for number, drop in enumerate(catalogue.drops):
        here = np.flatnonzero(catalogue.pairs.place.drop[some] == number)
        for texts in read_texts(drop.judgments, rows[here]):
            for place, prompt, a, b in zip(
                here[texts.place],
                texts.prompt.to_pylist(),
                texts.response_a.to_pylist(),
                texts.response_b.to_pylist(),
                strict=True,
            ):
                first, second = (b, a) if b_is_low[place] else (a, b)
                examples[place] = {
                    "pair_id": to_hex(catalogue.pairs.ids[some[place] : some[place] + 1])[0].as_py(),
                    "prompt": _excerpt(prompt[-1]["content"] if prompt else ""),
                    "one": _excerpt(first),
                    "other": _excerpt(second),
                    "for_one": int(low[some[place]]),
                    "for_other": int(high[some[place]]),
                }
    return examples


def _excerpt(text: str) -> str:
    """The beginning of a text; what looks like personal data is replaced first, so that no cut leaves half of it."""
    text = redact(pa.array([text.strip()]), rules=frozenset(PERSONAL_DATA))[0].as_py()
    return text if len(text) <= EXCERPT_CHARACTERS else text[:EXCERPT_CHARACTERS].rstrip() + " …"


def _spearman(left: np.ndarray, right: np.ndarray) -> float | None:
    """Rank correlation with average ranks; None where it is not defined."""
    if len(left) < 2 or len(np.unique(left)) < 2 or len(np.unique(right)) < 2:
        return None
    ranks = []
    for values in (left, right):
        _, code, sizes = np.unique(values, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(sizes) - (sizes - 1) / 2)[code])
    return _round(float(np.corrcoef(*ranks)[0, 1]))


def _share(hits: np.ndarray, of: np.ndarray) -> float | None:
    return _round(float((hits & of).sum() / of.sum())) if of.any() else None


def _mean(values: np.ndarray) -> float | None:
    return _round(float(values.mean())) if len(values) else None


def _round(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _interval(ends: tuple[float, float]) -> list[float] | None:
    return [round(end, 4) for end in ends] if all(map(math.isfinite, ends)) else None


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _round(value) if isinstance(value, float) else value for name, value in row.items()}

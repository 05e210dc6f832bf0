"""The annotator report: who judged how much, how well the judgments agree, and whose to look at again.

Pseudonyms only. The numbers stand in `report.json` and `annotators.parquet`; the page and the picture show them.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.core.tables import write_table
from dpo_pipeline.preferences.adding_up import believed, counted, model_of
from dpo_pipeline.preferences.annotator_figures import draw_all
from dpo_pipeline.preferences.annotator_page import headline, render_page
from dpo_pipeline.preferences.behaviour import Behaviour, Judged, suspicions
from dpo_pipeline.preferences.catalogue import Catalogue
from dpo_pipeline.preferences.comparisons import ByPrompt
from dpo_pipeline.preferences.disagreements import Disagreements
from dpo_pipeline.preferences.manners import MannerFile
from dpo_pipeline.preferences.noise import Toward
from dpo_pipeline.preferences.overall import Course, Dimensions, Overall, rounded
from dpo_pipeline.preferences.progress import Progress
from dpo_pipeline.preferences.rankings import Rankings
from dpo_pipeline.preferences.schemas import ANNOTATORS
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.preferences.spill import Scratch
from dpo_pipeline.preferences.texts import DropTables
from dpo_pipeline.preferences.verdict_file import VerdictFile
from dpo_pipeline.preferences.write import EXCLUDED_FILE, PAIRS_FILE

HISTOGRAM_BINS = np.linspace(0.5, 1.0, 11)


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
    catalogue = Catalogue(drops, Scratch(out))
    file = VerdictFile.merge(catalogue, reporter)
    reliability, found = _gone_through(catalogue, file, settings, reporter)
    columns = found.behaviour.columns(reliability)
    suspected = suspicions(columns, settings)
    table = _table(file.annotators, {**columns, "suspected": suspected})
    write_table(out / "annotators.parquet", table)

    overall, (about_pairs, p_chosen) = found.overall.figures(), _pairs(pairs)
    report = {
        "overall": overall,
        "dimensions": found.dimensions.figures(),
        "by_drop": found.course.by_drop(drops),
        "by_week": found.course.by_week(),
        "rankings": found.rankings.figures(),
        "pairs": about_pairs,
        "label_noise": found.toward.noise(p_chosen),
        "annotators": [_rounded(row) for row in table.to_pylist()],
        "disagreements": found.disagreements.examples(catalogue),
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
    return Outcome(
        counts={
            "judgments": len(file),
            "annotators": len(table),
            "annotators_suspected": suspected_count,
            "annotators_with_few_judgments": int(columns["few_judgments"].sum()),
        },
        facts={name: overall[name] for name in ("alpha_nominal", "alpha_ordinal", "raw_agreement", "longer_share")},
    )


class _Found(NamedTuple):
    """What is added up of the judgments."""

    overall: Overall
    dimensions: Dimensions
    course: Course
    behaviour: Behaviour
    rankings: Rankings
    toward: Toward
    disagreements: Disagreements


def _gone_through(
    catalogue: Catalogue, file: VerdictFile, settings: PreferenceSettings, reporter: Reporter
) -> tuple[np.ndarray, _Found]:
    """The annotators' reliabilities, and everything added up over all judgments, a range of pairs at a time."""
    model, manners = model_of(catalogue, file, reporter), MannerFile(catalogue.drops, catalogue.scratch)
    lengths = [catalogue.pairs.column(f"{part}_characters") for part in ("low", "high", "prompt")]
    behaviour = Behaviour(len(file.annotators), settings, catalogue.scratch)
    found = _Found(Overall(), Dimensions(file), Course(), behaviour, Rankings(), Toward(), Disagreements())
    progress = Progress(reporter, "judgments looked at", len(file))
    with ByPrompt(catalogue, least_pairs=2) as by_prompt:
        for start, end, verdicts in file.slices():
            own = (length[start:end].astype(np.int64) for length in lengths)
            judged = Judged(verdicts, manners.of(verdicts), believed(verdicts, model).p_low, *own)
            found.overall.add(judged)
            found.behaviour.add(judged)
            found.dimensions.add(verdicts)
            found.course.add(verdicts)
            found.disagreements.add(start, verdicts)
            mine = counted(verdicts)
            found.toward.add(mine.pair, mine.side)
            by_prompt.add(start, mine)
            progress.add(len(verdicts))
        for comparisons in by_prompt.ranges():
            found.rankings.add(comparisons)
    return model.reliability, found


def _table(annotators: list[str], columns: dict[str, Any]) -> pa.Table:
    columns = {"annotator": annotators, **columns}
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in ANNOTATORS]
    return pa.Table.from_arrays(arrays, schema=ANNOTATORS)


def _pairs(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What the kept pairs look like, and why others were left out; and the mean of `p_chosen`, none where none is."""
    bins, sums, kept, several = np.zeros(len(HISTOGRAM_BINS) - 1, np.int64), np.zeros(3), 0, 0
    with pq.ParquetFile(folder / PAIRS_FILE, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=["p_chosen", "agreement", "margin", "judgment_count"]):
            p_chosen, agreement, margin, judgments = (column.to_numpy().astype(float) for column in batch.columns)
            bins += np.histogram(batch.column("p_chosen").to_numpy(), bins=HISTOGRAM_BINS)[0]
            # One judgment agrees with itself, which says nothing.
            sums += [p_chosen.sum(), agreement[judgments > 1].sum(), margin.sum()]
            kept, several = kept + batch.num_rows, several + int((judgments > 1).sum())
    reasons: Counter[str] = Counter()
    with pq.ParquetFile(folder / EXCLUDED_FILE, pre_buffer=False) as file:
        for batch in file.iter_batches(columns=["reason"]):
            counts = batch.column(0).value_counts().to_pylist()
            reasons.update({entry["values"]: entry["counts"] for entry in counts})
    means = sums / [max(kept, 1), max(several, 1), max(kept, 1)]
    about = {
        "kept": kept,
        "p_chosen_histogram": bins.tolist(),
        "judged_by_several": several,
        "agreement_mean": rounded(float(means[1])) if several else None,
        "margin_mean": rounded(float(means[2])) if kept else None,
        "excluded": dict(sorted(reasons.items())),
    }
    return about, means[: min(kept, 1)]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: rounded(value) if isinstance(value, float) else value for name, value in row.items()}

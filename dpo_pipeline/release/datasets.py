"""The preference pairs as a dataset for others: Parquet per split, a card for people, Croissant for machines.

What leads to annotators stays at home: `annotators` and `judgment_ids` are left out. By `pair_id` the home that made
the pairs finds both again (`dpo-pipeline lineage trace --pair`).
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import MANIFEST
from dpo_pipeline.core.tables import open_writer
from dpo_pipeline.release.cards import write_dataset_card
from dpo_pipeline.release.contents import Contents
from dpo_pipeline.release.croissant import write_croissant
from dpo_pipeline.release.settings import ReleaseSettings

SPLITS = ("train", "held_out")
LEFT_OUT = ("annotators", "judgment_ids")
BATCH_ROWS = 20_000


def write_dataset(pairs: Path, out: Path, *, release: ReleaseSettings, published: str = "") -> Contents:
    """Write `README.md`, `croissant.json` and `data/<split>.parquet`.

    Args:
        pairs: The preference_pairs artifact folder.
        out: Folder to write into; made if missing.
        release: Name, licence, languages and intended use.
        published: The day, as YYYY-MM-DD; empty inside an artifact, which must not tell time.
    """
    manifest = json.loads((pairs / MANIFEST).read_text(encoding="utf-8"))
    (out / "data").mkdir(parents=True, exist_ok=True)
    tables = {split: out / "data" / f"{split}.parquet" for split in SPLITS}
    contents = _split(pairs / "pairs.parquet", tables)
    about: dict[str, Any] = {
        "name": f"{release.name}: preference pairs",
        "description": "Prompts with a chosen and a rejected response, by the consensus of human judgments.",
        "license": release.dataset_license,
        "url": f"urn:sha256:{pairs.name}",
        "version": f"1.0.0+{pairs.name[:12]}",
        "citeAs": f"dpo-pipeline, preference_pairs {pairs.name}",
        "inLanguage": list(release.languages),
        "isLiveDataset": False,
        **({"datePublished": published} if published else {}),
    }
    write_croissant(out / "croissant.json", tables, about=about)
    write_dataset_card(
        out / "README.md", tables["train"], contents, manifest=manifest, digest=pairs.name, release=release
    )
    return contents


def _split(source: Path, tables: dict[str, Path]) -> Contents:
    """Each split's rows into a file of its own, in their order; memory does not grow with the table."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    contents = Contents()
    with pq.ParquetFile(source) as table, ExitStack() as stack:
        names = [name for name in table.schema_arrow.names if name not in LEFT_OUT]
        schema = _only(table.schema_arrow, names)
        writers = {name: stack.enter_context(open_writer(path, schema)) for name, path in tables.items()}
        for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=names):
            for split, writer in writers.items():
                rows = batch.filter(pc.field("split") == split)
                contents.splits[split] += rows.num_rows
                if rows.num_rows:
                    writer.write_batch(rows.cast(schema) if rows.schema != schema else rows)
            _count(contents, batch)
    return contents


def _count(contents: Contents, batch: Any) -> None:
    names = set(batch.schema.names)
    for name, counts in (("sources", contents.sources), ("drops", contents.drops)):
        counts.update(batch.column(name).flatten().to_pylist() if name in names else [])
    contents.judgments += sum(batch.column("judgment_count").to_pylist()) if "judgment_count" in names else 0
    contents.agreement += sum(batch.column("agreement").to_pylist()) if "agreement" in names else 0.0


def _only(schema: Any, names: list[str]) -> Any:
    import pyarrow as pa

    return pa.schema([schema.field(name) for name in names], metadata=schema.metadata)

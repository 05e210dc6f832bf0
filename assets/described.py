"""What a person sees of an artifact in the Dagster UI: counts, books, a table preview, pictures, links."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets.column_lineage import column_lineage, columns_behind
from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.books import Books
from dpo_pipeline.core.home import Home

LARGEST_PICTURE_BYTES = 600_000
LARGEST_PAGE_BYTES = 50_000


def describe(artifact: Artifact, *, table: str | None, pages: str) -> dict[str, Any]:
    """Metadata for one materialization, all of it taken from the artifact: what is looked at first comes first.

    Args:
        artifact: What was published.
        table: Name of the Parquet file whose schema, row count and first rows are shown.
        pages: Base URL under which the artifacts' reports are served.
    """
    metadata: dict[str, Any] = {}
    if (artifact.path / "report.html").exists():
        metadata["report"] = dg.MetadataValue.url(f"{pages}/{artifact.kind}/{artifact.digest}/report.html")
    metadata["lineage"] = dg.MetadataValue.url(f"{pages}/lineage/{artifact.kind}/{artifact.digest}.html")
    for page in sorted(artifact.path.glob("*.md")):
        if page.stat().st_size <= LARGEST_PAGE_BYTES:
            metadata[page.stem.replace("_", " ")] = dg.MetadataValue.md(page.read_text(encoding="utf-8"))
    for picture in sorted(artifact.path.glob("*.png")):
        if picture.stat().st_size <= LARGEST_PICTURE_BYTES:
            metadata[picture.stem.replace("_", " ")] = dg.MetadataValue.md(_picture(picture.stem, picture.read_bytes()))
    metadata.update({name.replace("_", " "): count for name, count in artifact.counts.items()})
    metadata.update({name.replace("_", " "): _value(value) for name, value in artifact.facts.items()})
    if artifact.books is not None:
        metadata["books"] = dg.MetadataValue.md(books_as_markdown(artifact.books))
    if table is not None:
        metadata.update(_table(artifact.path / table, sources=columns_behind(artifact.kind)))
        metadata.update(column_lineage(artifact.kind))
    return metadata | {"digest": artifact.digest, "folder": dg.MetadataValue.path(str(artifact.path))}


def describe_remarks(remarks: Mapping[str, Any]) -> dict[str, Any]:
    """What must not enter an artifact: seconds, memory, device; and the speed of a training as a picture."""
    metadata = {name.replace("_", " "): value for name, value in remarks.items() if not isinstance(value, dict)}
    speeds = remarks.get("speeds") or {"step": []}
    if speeds["step"]:
        from dpo_pipeline.modeling.curves import SPEED_PANELS, draw_curves

        history = [dict(zip(speeds, values, strict=True)) for values in zip(*speeds.values(), strict=True)]
        picture = io.BytesIO()
        draw_curves(history, picture, panels=SPEED_PANELS)
        metadata["speed"] = dg.MetadataValue.md(_picture("speed", picture.getvalue()))
    return metadata


def describe_versions(home: Home, drop: str) -> dg.MarkdownMetadataValue:
    """Every content a drop was taken in with; earlier ones are kept under their digests."""
    from dpo_pipeline.annotations.listing import versions_of

    *earlier, newest = versions_of(home, drop)
    rows = [(one, "kept") for one in earlier] + [(newest, "newest")]
    lines = [f"| {one['version']} | {what} | {one['time'][:16]} | `{one['digest'][:12]}` |" for one, what in rows]
    return dg.MetadataValue.md("\n".join(["| version | | first taken in | digest |", "|---:|---|---|---|", *lines]))


def books_as_markdown(books: Books) -> str:
    """The double-entry books as a small table."""
    rows = [("in", books.records_in), *((f"kept as {name}", count) for name, count in sorted(books.kept.items()))]
    rows += [("merged", books.merged)] if books.merged else []
    rows += [(f"rejected: {reason}", count) for reason, count in books.rejected.most_common()]
    lines = [f"| {label} | {count:,} |" for label, count in rows]
    return "\n".join(["| entry | records |", "|---|---:|", *lines])


def _table(path: Path, *, sources: Mapping[str, str]) -> Mapping[str, Any]:
    from dpo_pipeline.core.tables import columns_of, preview, row_count

    columns = [
        dg.TableColumn(
            name=column["name"],
            type=column["type"],
            description=" ".join(filter(None, (column["description"], sources.get(column["name"])))),
            constraints=dg.TableColumnConstraints(nullable=column["nullable"] == "yes"),
        )
        for column in columns_of(path)
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": row_count(path),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
    }
    if rows := preview(path):
        metadata["first rows"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return metadata


def _picture(name: str, png: bytes) -> str:
    encoded = base64.b64encode(png).decode()
    return f"![{name}](data:image/png;base64,{encoded})"


def _value(value: Any) -> Any:
    if isinstance(value, str | bool | int | float):
        return value
    return dg.MetadataValue.json(value)

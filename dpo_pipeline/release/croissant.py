"""A dataset's description for machines: Croissant 1.1 (docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html)."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dpo_pipeline.core.digests import sha256_of_file

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataBiases": "cr:dataBiases",
    "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    "float": "sc:Float",
    "double": "sc:Float",
    "int8": "sc:Integer",
    "int32": "sc:Integer",
    "int64": "sc:Integer",
}


def write_croissant(path: Path, tables: Mapping[str, Path], *, about: Mapping[str, Any]) -> None:
    """Write the JSON-LD.

    Args:
        path: The file to write, beside the tables.
        tables: One Parquet file a split, all of one schema.
        about: Properties of the dataset: name, description, license, version and what else schema.org has.
    """
    described = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        **about,
        "distribution": [_file(name, table, path.parent) for name, table in tables.items()],
        "recordSet": [_record_set(name, table) for name, table in tables.items()],
    }
    path.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _file(name: str, table: Path, folder: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"{name}-file",
        "name": table.name,
        "contentUrl": table.relative_to(folder).as_posix(),
        "contentSize": f"{table.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": sha256_of_file(table),
    }


def _record_set(name: str, table: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    fields = list(pq.read_schema(table))
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The {name.replace('_', '-')} split, one preference pair a row.",
        "key": {"@id": f"{name}/{fields[0].name}"},
        "field": [_field(field, f"{name}/{field.name}", f"{name}-file", [field.name]) for field in fields],
    }


def _field(field: Any, at: str, file: str, way: Sequence[str]) -> dict[str, Any]:
    """A column; a list repeats, a struct's members are sub-fields."""
    import pyarrow as pa

    described: dict[str, Any] = {"@type": "cr:Field", "@id": at, "name": at}
    if text := (field.metadata or {}).get(b"description", b"").decode():
        described["description"] = text
    kind = field.type
    if pa.types.is_list(kind):
        described |= {"isArray": True, "arrayShape": "-1"}
        kind = kind.value_type
    if pa.types.is_struct(kind):
        described["subField"] = list(_members(kind, at, file, way))
        return described
    extract: dict[str, Any] = {"column": way[0]}
    source: dict[str, Any] = {"fileObject": {"@id": file}, "extract": extract}
    if len(way) > 1:
        source["transform"] = {"jsonPath": ".".join(["$[*]", *way[1:]])}
    return {**described, "dataType": TYPES.get(str(kind), "sc:Text"), "source": source}


def _members(kind: Any, at: str, file: str, way: Sequence[str]) -> Iterator[dict[str, Any]]:
    for member in kind:
        yield _field(member, f"{at}/{member.name}", file, [*way, member.name])

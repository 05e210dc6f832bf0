"""What a manifest read from disk must look like before anything in it is believed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.core.books import Books

MANIFEST = "manifest.json"


def assert_manifest(manifest: Any) -> None:
    """Raise ValueError unless the values have the types a manifest has and no name in it leads outside the store."""
    if not isinstance(manifest, dict):
        raise ValueError(f"{MANIFEST} is {type(manifest).__name__}, not an object")  # noqa: TRY004
    for name, kind in _SHAPE.items():
        if not isinstance(manifest.get(name), kind):
            raise ValueError(f"{MANIFEST} has {type(manifest.get(name)).__name__} as {name}")  # noqa: TRY004
    for name, fields in (("parents", ("role", "kind", "digest")), ("files", ("name", "sha256"))):
        for entry in manifest[name]:
            if not isinstance(entry, dict) or not all(isinstance(entry.get(field), str) for field in fields):
                raise ValueError(f"{MANIFEST} has an entry of {name} without {', '.join(fields)}")
    outside = [name for name in _names_in(manifest) if ".." in Path(name).parts or Path(name).is_absolute()]
    if outside:
        raise ValueError(f"{MANIFEST} names {outside[0]!r}, which lies outside")
    if manifest["books"] is not None:
        Books.from_dict(manifest["books"])


def _names_in(manifest: Mapping[str, Any]) -> Iterator[str]:
    yield from (entry["name"] for entry in manifest["files"])
    yield from (f"{parent['kind']}/{parent['digest']}" for parent in manifest["parents"])


_SHAPE: Mapping[str, Any] = {
    "kind": str,
    "code_version": str,
    "settings": dict,
    "parents": list,
    "files": list,
    "counts": dict,
    "facts": dict,
    "books": dict | None,
}

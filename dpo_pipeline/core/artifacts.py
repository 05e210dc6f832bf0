"""Artifacts: folders named by their content, written aside, hashed file by file, published by one rename.

`<home>/artifacts/<kind>/<digest>/` holds the files and `manifest.json`; the digest is that of the manifest, and the
manifest names every file with size and SHA-256, the parents, the settings and the code version. Nothing in it tells
time or place, so the same inputs, settings and code give the same digest on any machine.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dpo_pipeline.core.books import Books
from dpo_pipeline.core.digests import canonical_json, digest_of_json, sha256_of_file
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.manifests import MANIFEST, assert_manifest

SCHEMA = "dpo-pipeline/manifest/1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a stage says of what it wrote into its folder.

    Attributes:
        counts: Rows, tokens, steps: integers that add up.
        facts: Measured or chosen values a person wants to see; must not tell time or place.
        books: What became of every record, where the stage handles records.
        remarks: Informative values that do NOT enter the digest: seconds, memory, device, warnings.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    books: Books | None = None
    remarks: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parent:
    """An input of an artifact: its role ("judgments/2026-05"), kind and digest."""

    role: str
    kind: str
    digest: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that shapes an artifact before it is made: kind, code version, settings, parents in order."""

    kind: str
    code_version: str
    settings: Mapping[str, Any]
    parents: tuple[Parent, ...]

    @property
    def digest(self) -> str:
        """The key under which an equal artifact, or a half-done piece of work, is found again."""
        return digest_of_json(asdict(self))


@dataclass(frozen=True, slots=True)
class Artifact:
    """A published folder and its manifest."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The manifest's content digest; also the folder's name."""
        return digest_of_json(self.manifest)

    @property
    def kind(self) -> str:
        """What it is: "preference_pairs", "dpo_checkpoint", ..."""
        return str(self.manifest["kind"])

    @property
    def counts(self) -> Mapping[str, int]:
        """The stage's integer counts."""
        return self.manifest["counts"]

    @property
    def facts(self) -> Mapping[str, Any]:
        """The stage's measured or chosen values."""
        return self.manifest["facts"]

    @property
    def books(self) -> Books | None:
        """What became of every record, where the stage handles records."""
        books = self.manifest["books"]
        return None if books is None else Books.from_dict(books)

    @property
    def parents(self) -> tuple[Parent, ...]:
        """What it was made from, in the order the stage read it."""
        return tuple(Parent(**parent) for parent in self.manifest["parents"])

    def verify(self) -> list[str]:
        """One sentence per file that is missing, altered or extra; empty when the folder is what it claims.

        Raises:
            ArtifactError: Never; a manifest that does not hash to the folder's name is reported as a sentence.
        """
        faults = []
        if self.digest != self.path.name:
            faults.append(f"{self.path / MANIFEST} hashes to {self.digest}, its folder is named {self.path.name}")
        claimed = {entry["name"]: entry for entry in self.manifest["files"]}
        present = {str(path.relative_to(self.path).as_posix()) for path in self.path.rglob("*") if path.is_file()}
        faults += [
            f"{self.path / name} is on disk but not in the manifest" for name in sorted(present - {MANIFEST, *claimed})
        ]
        for name, entry in claimed.items():
            path = self.path / name
            if path.is_symlink() or not path.is_file():
                faults.append(f"{path} is missing or a link; the manifest claims sha256 {entry['sha256']}")
            elif (found := sha256_of_file(path)) != entry["sha256"]:
                faults.append(f"{path} hashes to {found}, the manifest claims {entry['sha256']}")
        return faults

    def holds(self, name: str) -> bool:
        """Whether it has this file, unaltered; the others are not looked at."""
        claimed = {entry["name"]: entry["sha256"] for entry in self.manifest["files"]}
        path = self.path / name
        is_file = self.digest == self.path.name and name in claimed and path.is_file() and not path.is_symlink()
        return is_file and sha256_of_file(path) == claimed[name]


class ArtifactStore:
    """The artifacts under one home.

    Args:
        root: The folder `<home>/artifacts`; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path_of(self, kind: str, digest: str) -> Path:
        """Where an artifact lies, whether or not it exists."""
        return self.root / kind / digest

    def get(self, kind: str, digest: str) -> Artifact:
        """A published artifact, without re-hashing its files.

        Raises:
            ArtifactError: If it is not there or its manifest cannot be read.
        """
        path = self.path_of(kind, digest)
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            assert_manifest(manifest)
        except (OSError, ValueError, RecursionError) as error:
            raise ArtifactError(
                f"the {kind} artifact {digest} cannot be read at {path}: {error}",
                expected=f"a folder with {MANIFEST}",
                do="Restore it from a backup, or materialize the asset again",
            ) from error
        return Artifact(path, manifest)

    def find(self, recipe: Recipe) -> Artifact | None:
        """The artifact an equal recipe gave before, if its folder is still there and complete."""
        pointer = self._pointer(recipe)
        if not pointer.exists():
            return None
        try:
            return self.get(recipe.kind, pointer.read_text(encoding="utf-8").strip())
        except ArtifactError:
            return None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private folder to write into; removed at the end unless published.

        The folder's name starts with the writer's process id, so a janitor can tell the abandoned ones.
        """
        folder = self.root / ".staging" / f"{os.getpid()}-{uuid.uuid4().hex}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, folder: Path, recipe: Recipe, outcome: Outcome) -> Artifact:
        """Seal a staged folder: hash, write the manifest, fsync everything, rename to the content address.

        An unaltered artifact already there under the same digest is kept and returned. An altered one is set aside
        under `.damaged/` as evidence, and this one takes its place.

        Raises:
            ArtifactError: If the folder holds a link or nothing at all.
        """
        manifest = _manifest_of(folder, recipe, outcome)
        digest = digest_of_json(manifest)
        target = self.path_of(recipe.kind, digest)
        (folder / MANIFEST).write_text(canonical_json(manifest) + "\n", encoding="utf-8")
        _sync_tree(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._set_aside_if_damaged(target)
        try:
            folder.rename(target)
        except OSError:
            if not (target / MANIFEST).exists():  # else another process published the same just before
                raise
        _sync_folder(target.parent)
        self._point(recipe, digest)
        return Artifact(target, manifest)

    def _set_aside_if_damaged(self, target: Path) -> None:
        if not target.exists():
            return
        try:
            intact = not self.get(target.parent.name, target.name).verify()
        except ArtifactError:
            intact = False
        if not intact:
            aside = self.root / ".damaged" / target.parent.name / f"{target.name}-{uuid.uuid4().hex[:8]}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            target.rename(aside)

    def _pointer(self, recipe: Recipe) -> Path:
        return self.root / ".recipes" / recipe.digest

    def _point(self, recipe: Recipe, digest: str) -> None:
        pointer = self._pointer(recipe)
        pointer.parent.mkdir(parents=True, exist_ok=True)
        aside = pointer.with_name(f"{pointer.name}.{uuid.uuid4().hex}")
        aside.write_text(digest + "\n", encoding="utf-8")
        aside.replace(pointer)


def _manifest_of(folder: Path, recipe: Recipe, outcome: Outcome) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "kind": recipe.kind,
        "code_version": recipe.code_version,
        "settings": dict(recipe.settings),
        "parents": [asdict(parent) for parent in recipe.parents],
        "files": _files_of(folder),
        "counts": dict(outcome.counts),
        "facts": dict(outcome.facts),
        "books": None if outcome.books is None else outcome.books.as_dict(),
    }


def _files_of(folder: Path) -> Sequence[Mapping[str, Any]]:
    entries = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise ArtifactError(f"{name} is a symbolic link", expected="plain files", do="Copy the file instead")
        if path.is_file() and name != MANIFEST:
            entries.append({"name": name, "size": path.stat().st_size, "sha256": sha256_of_file(path)})
    if not entries:
        raise ArtifactError("the staged folder is empty", expected="at least one file", do="Report this as a defect")
    return entries


def _sync_tree(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        else:
            _sync_folder(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)

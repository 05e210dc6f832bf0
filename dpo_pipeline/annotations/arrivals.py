"""What lies in the inbox, a local folder or any fsspec URL: which drops are complete, and why others are not taken in.

A drop is a folder. It is complete when the file `_COMPLETE` is in it, or when nothing in it changed for some time; only
then is it copied, and if it changes meanwhile, the copy is thrown away. So no half-copied file is ever read.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dpo_pipeline.annotations.deliveries import NO_NAME, Delivery, judged
from dpo_pipeline.annotations.drops import COMPLETE, copy_drop, is_left_out
from dpo_pipeline.core.artifacts import Outcome
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.home import DROP_NAME, Home

REST_SECONDS = 60.0
STATE = "inbox_state"
"""The remark of a `raw_annotations` attempt that says which state of the drop's folder it copied."""


class Inbox(Protocol):
    """A place where drops arrive."""

    @property
    def where(self) -> str:
        """Its path or URL, for words."""
        ...

    def look(self) -> list[Delivery]:
        """Every entry, by name."""
        ...

    def look_at(self, name: str) -> Delivery:
        """One entry; with a hindrance where there is none of that name."""
        ...

    def copy(self, name: str, out: Path) -> Outcome:
        """Copy a drop's files to `out/files/`; counts `files` and `bytes`."""
        ...


def open_inbox(where: str, *, rest_seconds: float = REST_SECONDS) -> Inbox:
    """The inbox at a path or URL (`s3://bucket/inbox`, `sftp://host/inbox`, ...).

    Args:
        where: A path, or a URL that fsspec knows.
        rest_seconds: How long nothing may have changed in a folder without a marker before it counts as complete.

    Raises:
        InputError: If no installed package serves such URLs.
    """
    if "://" not in where:
        return LocalInbox(Path(where), rest_seconds)
    if where.startswith(("file://", "local://")):
        return LocalInbox(Path(where.partition("://")[2]), rest_seconds)
    from dpo_pipeline.annotations.remote_inbox import open_remote

    return open_remote(where, rest_seconds=rest_seconds)


def take_in(inbox: Inbox, name: str, out: Path) -> Outcome:
    """Copy a complete drop to `out/files/`; the outcome's remark `inbox_state` says which state was copied.

    Raises:
        InputError: If the drop is not complete, or changed while it was copied.
    """
    before = inbox.look_at(name)
    if before.hindrance is not None:
        raise InputError(
            f"the drop {name!r} in {inbox.where} is not taken in: {before.hindrance}",
            expected=f"a folder of plain files with {COMPLETE} in it, or one in which nothing changed for a while",
            do="Wait and run it again" if before.is_waiting else "Put that right in the inbox and run it again",
        )
    outcome = inbox.copy(name, out)
    if inbox.look_at(name).state != before.state:
        raise InputError(
            f"the drop {name!r} in {inbox.where} changed while it was copied",
            expected=f"that nobody writes to a drop once it is complete ({COMPLETE} comes last)",
            do="Nothing of it was kept; run it again when the delivery is done",
        )
    return Outcome(counts=outcome.counts, remarks={STATE: before.state})


def states_taken_in(home: Home) -> dict[str, str]:
    """By drop, the state of its inbox folder that the ledger says was copied last."""
    lines = [line for line in home.finished() if line["asset"] == "raw_annotations"]
    return {line["partition"]: str((line.get("remarks") or {}).get(STATE)) for line in lines}


@dataclass(frozen=True, slots=True)
class LocalInbox:
    """A folder on this machine, or one mounted here."""

    folder: Path
    rest_seconds: float

    @property
    def where(self) -> str:
        """The folder."""
        return str(self.folder)

    def look(self) -> list[Delivery]:
        """Every entry but hidden ones, by name."""
        if not self.folder.is_dir():
            return []
        return [self.look_at(path.name) for path in sorted(self.folder.iterdir()) if not path.name.startswith(".")]

    def look_at(self, name: str) -> Delivery:
        """One entry."""
        folder = self.folder / name
        if not DROP_NAME.fullmatch(name):
            return Delivery(name, "", NO_NAME)
        if folder.is_symlink() or not folder.is_dir():
            there = folder.is_symlink() or folder.exists()
            return Delivery(name, "", "it is not a folder" if there else "there is no folder of that name")
        try:
            files = _files_in(folder)
        except FileNotFoundError:  # somebody moves files about just now
            return Delivery(name, "", "it is being written to", is_waiting=True)
        except InputError as error:
            return Delivery(name, "", error.found)
        facts = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in files.items()]
        newest = max((max(stat.st_mtime, stat.st_ctime) for stat in files.values()), default=None)
        sizes = {path: stat.st_size for path, stat in files.items()}
        return judged(name, facts, sizes, newest, self.rest_seconds)

    def copy(self, name: str, out: Path) -> Outcome:
        """Copy the files; links and special files are refused."""
        return copy_drop(self.folder / name, out)


def _files_in(folder: Path, root: Path | None = None) -> dict[str, Any]:
    """Path inside the drop -> stat of every plain file.

    Raises:
        InputError: At a link or a special file.
    """
    root, found = root or folder, {}
    for path in sorted(folder.iterdir()):
        inside = path.relative_to(root).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InputError(f"it holds {inside}, a link or a special file")
        if path.is_dir():
            found |= {} if is_left_out(path) else _files_in(path, root)
        elif not path.name.startswith("."):
            found[inside] = path.stat()
    return found

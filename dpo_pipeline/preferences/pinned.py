"""Files a rule reads, named with the digest of their bytes: settings say what shaped a table, not where it lay."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, field_validator

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.settings import Settings

SHA256 = "^[0-9a-f]{64}$"
PINNED_REPOSITORY = re.compile(r"[^@\s/]+(?:/[^@\s/]+)?@[0-9a-f]{40}")


class PinnedFile(Settings):
    """A file and what its bytes must be."""

    path: str = Field(default="", exclude=True)
    """Where it lies on this machine. No part of the recipe: the same bytes elsewhere give the same tables."""

    sha256: str = Field(pattern=SHA256)
    """SHA-256 of its bytes, in hexadecimal digits."""

    def checked_path(self) -> Path:
        """The file, once its bytes are found to be the ones named.

        Raises:
            InputError: If it is not there, or is another file.
        """
        return _checked(self.path, self.sha256, "file", Path.is_file, sha256_of_file)


class PinnedFolder(Settings):
    """A folder and what its files must be."""

    path: str = Field(default="", exclude=True)
    """Where it lies on this machine; no part of the recipe."""

    sha256: str = Field(pattern=SHA256)
    """SHA-256 over the names and digests of its files; `dpo-pipeline digest FOLDER` prints it."""

    def checked_path(self) -> Path:
        """The folder, once its files are found to be the ones named.

        Raises:
            InputError: If it is not there, or holds other files.
        """
        return _checked(self.path, self.sha256, "folder", Path.is_dir, sha256_of_folder)


class BenchmarkFile(PinnedFile):
    """Items a model will be tested on: JSON lines, a JSON list, CSV or Parquet, plain or `.gz`."""

    name: str = ""
    """What reports call it; absent: the first twelve digits of its SHA-256."""

    field: str = "prompt"
    """The field that holds an item's text."""

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.name or self.sha256[:12]


class GoldenSet(PinnedFile):
    """Pairs for evaluation alone: JSON lines, a JSON list, CSV or Parquet with `prompt`, `chosen` and `rejected`."""

    name: str = Field(default="golden set", min_length=1)
    """What reports call it."""


class HubFile(Settings):
    """A file of a Hugging Face repository, pinned to a commit."""

    hub: str
    """The repository and the commit: `owner/name@<40 hexadecimal digits>`."""

    @field_validator("hub")
    @classmethod
    def _names_a_commit(cls, hub: str) -> str:
        if not PINNED_REPOSITORY.fullmatch(hub):
            message = "a branch can change, so name the commit: owner/name@<40 hexadecimal digits>"
            raise ValueError(message)
        return hub

    def cached_path(self, name: str) -> Path:
        """A file of the repository: from the machine's Hugging Face cache, else downloaded into it.

        Raises:
            InputError: If it is not cached and cannot be downloaded.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        repository, commit = self.hub.split("@")
        try:
            return Path(hf_hub_download(repository, name, revision=commit, local_files_only=True))
        except LocalEntryNotFoundError:
            pass
        try:
            return Path(hf_hub_download(repository, name, revision=commit))
        except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
            raise InputError(
                f"{name} of {self.hub} is not in this machine's cache and could not be downloaded "
                f"({type(error).__name__})",
                expected="the file in the cache, or a connection to huggingface.co",
                do=f"Run `hf download {repository} {name} --revision {commit}` where there is a connection, or name a "
                "file by its path and sha256",
            ) from error


def sha256_of_folder(folder: Path) -> str:
    """The SHA-256 over the sorted names and digests of a folder's files, hidden ones left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            digest.update(f"{sha256_of_file(path)}  {name.as_posix()}\n".encode())
    return digest.hexdigest()


def _checked(
    where: str, sha256: str, kind: str, is_there: Callable[[Path], bool], digest_of: Callable[[Path], str]
) -> Path:
    path = Path(where).expanduser()
    if not where or not is_there(path):
        named = f"there is no {kind} {path}" if where else f"no path is given for the {kind} with SHA-256 {sha256}"
        raise InputError(named, expected=f"the {kind} the profile names", do="Put it there, or correct the path")
    if (found := digest_of(path)) != sha256:
        raise InputError(
            f"{path} has the SHA-256 {found}",
            expected=sha256,
            do=f"Restore the {kind}, or write its new digest into the profile; the tables are then built anew",
        )
    return path

"""Files a rule reads, named with the digest of their bytes: settings say what shaped a table, not only where it lay."""

from pathlib import Path

from pydantic import Field

from dpo_pipeline.core.digests import sha256_of_file
from dpo_pipeline.core.errors import InputError
from dpo_pipeline.core.settings import Settings


class PinnedFile(Settings):
    """A file and what its bytes must be."""

    path: str
    """Where it lies on this machine."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of its bytes, in hexadecimal digits."""

    def checked_path(self) -> Path:
        """The file, once its bytes are found to be the ones named.

        Raises:
            InputError: If it is not there, or is another file.
        """
        path = Path(self.path).expanduser()
        if not path.is_file():
            raise InputError(f"there is no file {path}", expected="the file the profile names", do="Put it there")
        if (found := sha256_of_file(path)) != self.sha256:
            raise InputError(
                f"{path} has the SHA-256 {found}",
                expected=self.sha256,
                do="Restore the file, or write its new digest into the profile; the tables are then built anew",
            )
        return path


class BenchmarkFile(PinnedFile):
    """Items a model will be tested on: JSON lines, a JSON list, CSV or Parquet, plain or `.gz`."""

    field: str = "prompt"
    """The field that holds an item's text."""

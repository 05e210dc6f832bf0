"""The home: the one folder under which everything mutable lies, and what the ledger in it says is current."""

import fcntl
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import Artifact, ArtifactStore, Recipe
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.ledger import Ledger

HOME_VARIABLE = "DPO_PIPELINE_HOME"
INBOX_VARIABLE = "DPO_PIPELINE_INBOX"
DROP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Home:
    """Where things lie.

    Args:
        root: The home's folder. `Home.default()` takes it from DPO_PIPELINE_HOME, else `./home`.
        inbox: Path or fsspec URL under which drops arrive; empty: `inbox/` in the home.
    """

    def __init__(self, root: Path, inbox: str = "") -> None:
        self.root = root.resolve()
        self.inbox = self.root / "inbox"
        self.inbox_url = inbox or str(self.inbox)
        self.store = ArtifactStore(self.root / "artifacts")
        self.ledger = Ledger(self.root / "ledger" / "ledger.jsonl")
        self.mlflow = self.root / "mlflow"
        self._finished: list[Mapping[str, Any]] = []
        self._read_to = (0, 0)

    @classmethod
    def default(cls) -> "Home":
        """The home and the inbox the environment names, else `./home` and the inbox in it."""
        return cls(Path(os.environ.get(HOME_VARIABLE) or "home"), os.environ.get(INBOX_VARIABLE) or "")

    def work_folder(self, recipe: Recipe) -> Path:
        """Where a half-done piece of work is kept, so that a retry of the same recipe finds its checkpoints."""
        return self.root / "work" / recipe.kind / recipe.digest

    def pseudonym_key(self) -> bytes:
        """The secret that turns annotator ids into pseudonyms; made on first use, readable by its owner only.

        Losing it means that the same annotator gets another pseudonym in later drops.
        """
        path = self.root / "keys" / "pseudonym.key"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            aside = path.with_suffix(f".{os.getpid()}")
            aside.touch(mode=0o600)
            aside.write_bytes(secrets.token_bytes(32))
            try:
                os.link(aside, path)
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        return path.read_bytes()

    def pseudonym_fingerprint(self) -> str:
        """32 hexadecimal digits that tell one pseudonym key from another and nothing about either.

        Part of every recipe in which pseudonyms stand: with another key nothing made under the old one is reused.
        """
        return hashlib.blake2b(b"fingerprint", digest_size=16, key=self.pseudonym_key()).hexdigest()

    def latest(self, asset: str, partition: str | None = None) -> Artifact:
        """The artifact the ledger names as the newest one made of an asset.

        Raises:
            ArtifactError: If the asset was never made, or its artifact is gone.
        """
        line = self.latest_line(asset, partition)
        if line is None:
            label = asset if partition is None else f"{asset} of drop {partition}"
            raise ArtifactError(
                f"{label} has not been made yet", expected="a finished attempt in the ledger", do=f"Materialize {asset}"
            )
        return self.store.get(asset, line["artifact"])

    def latest_line(self, asset: str, partition: str | None = None) -> Mapping[str, Any] | None:
        """The ledger's newest `finished` line of an asset; None where it was never made."""
        made = (line for line in reversed(self.finished()) if line.get("asset") == asset)
        return next((line for line in made if line.get("partition") == partition), None)

    def finished(self) -> list[Mapping[str, Any]]:
        """Every `finished` line, in order; of a ledger read before, only what was added since is read.

        A table of 100 drops asks some 200 times. Proof never rests on this: `Ledger.verify` reads the whole file.
        """
        try:
            stat = self.ledger.path.stat()
        except FileNotFoundError:
            return []
        inode, offset = self._read_to
        if inode != stat.st_ino or stat.st_size < offset:
            self._finished, offset = [], 0
        with self.ledger.path.open("rb") as stream:
            stream.seek(offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        added = (json.loads(text) for text in whole.splitlines() if b'"event":"finished"' in text)
        self._finished += [line for line in added if line["event"] == "finished"]
        self._read_to = (stat.st_ino, offset + len(whole))
        return self._finished

    def all_made(self, asset: str) -> list[Artifact]:
        """Every artifact of an asset the ledger names that is still there, newest first, each once."""
        digests = [line["artifact"] for line in self.finished() if line["asset"] == asset]
        newest_first = dict.fromkeys(reversed(digests))
        return [self.store.get(asset, digest) for digest in newest_first if self.store.path_of(asset, digest).is_dir()]

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Hold the lock of this name: no other process of the home is inside a block of the same name."""
        path = self.ledger.path.with_name(f"{what}.lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def partitions(self, asset: str) -> list[str]:
        """The drops of which a partitioned asset was made, in order of first arrival (of `raw_annotations`)."""
        arrival: dict[str, None] = {}
        made = set()
        for line in self.finished():
            if line["partition"] is not None:
                if line["asset"] == "raw_annotations":
                    arrival.setdefault(line["partition"])
                if line["asset"] == asset:
                    made.add(line["partition"])
        return [drop for drop in arrival if drop in made]

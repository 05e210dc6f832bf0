"""Under which code and with which packages something was made: commit, uncommitted changes, installed versions."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import dpo_pipeline
from dpo_pipeline.core.digests import canonical_json, digest_of_json

SOURCE_ROOT = Path(dpo_pipeline.__file__).parent.parent


@cache
def describe_code() -> dict[str, Any]:
    """The version of dpo-pipeline, its source digest, and git's word on commit and uncommitted changes."""
    return {
        "dpo_pipeline": dpo_pipeline.__version__,
        "source_sha256": _source_digest(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty_sha256": _dirty_digest(),
    }


@cache
def describe_environment() -> dict[str, Any]:
    """Python, platform and a digest over all installed distributions, with the versions that shape results."""
    installed = installed_versions()
    shaping = ("torch", "transformers", "tokenizers", "peft", "pyarrow", "numpy", "msgspec", "safetensors")
    lock = SOURCE_ROOT / "requirements.lock"
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "installed_sha256": digest_of_json(installed),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.exists() else None,
        "versions": {name: installed[name] for name in shaping if name in installed},
    }


@cache
def installed_versions() -> dict[str, str]:
    """The version of every installed distribution by its name in lower case."""
    return {name.lower(): item.version for item in metadata.distributions() if (name := item.metadata["Name"])}


def keep_installed(folder: Path) -> Path:
    """Write the list of installed versions once per set of them, named by its digest; the file."""
    path = folder / f"{describe_environment()['installed_sha256']}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(canonical_json(installed_versions()) + "\n", encoding="utf-8")
        aside.replace(path)
    return path


def commit_exists(commit: str | None) -> bool:
    """Whether the repository this runs from holds a commit."""
    is_name = commit is not None and len(commit) >= 40 and commit.isalnum()
    return is_name and _git("cat-file", "-t", str(commit)) == "commit"


def _source_digest() -> str:
    """One digest over the three packages' Python and data files, by name and content."""
    digest = hashlib.sha256()
    for package in ("assets", "dpo_pipeline", "resources"):
        for path in sorted((SOURCE_ROOT / package).rglob("*")):
            if path.is_file() and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(SOURCE_ROOT).as_posix()}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _dirty_digest() -> str | None:
    """The digest of the uncommitted changes to tracked files; None where there are none or there is no git."""
    changes = _git("diff", "HEAD")
    return hashlib.sha256(changes.encode()).hexdigest() if changes else None


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(SOURCE_ROOT), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None

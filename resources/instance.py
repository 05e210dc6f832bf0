"""Where Dagster keeps its state: under the home, with the limits of the repository's dagster.yaml."""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dpo_pipeline.core.environment import SOURCE_ROOT
from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.core.home import HOME_VARIABLE, Home

STATE_FOLDERS = ("storage", "local_artifact_storage", "compute_logs")  # under DAGSTER_HOME when left out
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
OURS = "# Written by dpo-pipeline, and again when it changes there; edit it and it is yours. sha256 "


def prepare_instance(home: Home) -> dict[str, str]:
    """Write `<home>/dagster/dagster.yaml` and set the environment that every process of this home needs.

    A DAGSTER_HOME that is already set is respected: its operator knows the storage they want (Postgres, say). So is a
    dagster.yaml that somebody edited; what it lacks of ours is said once a process.

    Returns:
        The variables set, for processes started from here.

    Raises:
        SettingsError: If an edited dagster.yaml is none that Dagster could read.
    """
    variables = {HOME_VARIABLE: str(home.root), **QUIET}
    if not os.environ.get("DAGSTER_HOME"):
        folder = home.root / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        _write_settings(folder / "dagster.yaml")
        (folder / ".nux").mkdir(exist_ok=True)
        _replace(folder / ".nux" / "nux.yaml", "seen: 1\n")  # no newsletter dialog on first sight
        variables["DAGSTER_HOME"] = str(folder)
    os.environ.update(variables)
    return variables


def _write_settings(path: Path) -> None:
    settings = yaml.safe_load(shipped("dagster.yaml").read_text(encoding="utf-8"))
    kept = {name: value for name, value in settings.items() if name not in STATE_FOLDERS}
    text = yaml.safe_dump(kept)
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    if found and not _is_ours(found):
        if said := "; ".join(_differences(found, kept, path)):
            words = "%s is left as it is: %s %s. To get the one of %s, delete it"
            whose = "it was edited since" if found.startswith(OURS) else "it does not say that we wrote it"
            logging.getLogger(__name__).warning(words, path, whose, said, shipped("dagster.yaml"))
        return
    if found != (written := f"{OURS}{_digest(text)}\n{text}"):
        _replace(path, written)


def _differences(text: str, ours: Mapping[str, Any], path: Path) -> Iterator[str]:
    """What an edited file lacks; of one without our first line, perhaps written by an earlier version, what differs.

    Raises:
        SettingsError: If it is none that Dagster could read.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(str(path), [f"the file is not YAML: {error}"]) from error
    if not isinstance(found, dict | None):
        raise SettingsError(str(path), [f"found a {type(found).__name__}, expected sections; delete it to get ours"])
    found = found or {}
    if missing := sorted(ours.keys() - found.keys()):
        yield f"and lacks the sections {', '.join(missing)}"
    changed = [name for name in sorted(ours.keys() & found.keys()) if ours[name] != found[name]]
    if changed and not text.startswith(OURS):
        yield f"and has another {', '.join(changed)}"


def _is_ours(text: str) -> bool:
    """Whether a file is as it was written here, today or by an earlier version of the code."""
    first, _, rest = text.partition("\n")
    return first == f"{OURS}{_digest(rest)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _replace(path: Path, text: str) -> None:
    """Written aside and renamed: servers and runs read it at the same time."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def create_storage() -> None:
    """Make the instance's databases where there are none: servers that make them at once get in each other's way."""
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        instance.get_runs(limit=1)
        instance.all_asset_keys()
        instance.all_instigator_state()


def shipped(name: str) -> Path:
    """A file of the repository's root; in an installed wheel it lies beside this module."""
    in_checkout = SOURCE_ROOT / name
    return in_checkout if in_checkout.exists() else Path(__file__).with_name(name)

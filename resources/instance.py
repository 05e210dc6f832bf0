"""Where Dagster keeps its state: under the home, with the limits of the repository's dagster.yaml."""

import os
from pathlib import Path

import yaml

from dpo_pipeline.core.environment import SOURCE_ROOT
from dpo_pipeline.core.home import HOME_VARIABLE, Home

STATE_FOLDERS = ("storage", "local_artifact_storage", "compute_logs")  # under DAGSTER_HOME when left out
QUIET = {
    "DAGSTER_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def prepare_instance(home: Home) -> dict[str, str]:
    """Write `<home>/dagster/dagster.yaml` and set the environment that every process of this home needs.

    A DAGSTER_HOME that is already set is respected: its operator knows the storage they want (Postgres, say).

    Returns:
        The variables set, for processes started from here.
    """
    variables = {HOME_VARIABLE: str(home.root), **QUIET}
    if not os.environ.get("DAGSTER_HOME"):
        folder = home.root / "dagster"
        folder.mkdir(parents=True, exist_ok=True)
        settings = yaml.safe_load(shipped("dagster.yaml").read_text(encoding="utf-8"))
        kept = {name: value for name, value in settings.items() if name not in STATE_FOLDERS}
        (folder / "dagster.yaml").write_text(yaml.safe_dump(kept), encoding="utf-8")
        (folder / ".nux").mkdir(exist_ok=True)
        (folder / ".nux" / "nux.yaml").write_text("seen: 1\n", encoding="utf-8")  # no newsletter dialog on first sight
        variables["DAGSTER_HOME"] = str(folder)
    os.environ.update(variables)
    return variables


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

"""Profiles: every setting of every stage in one YAML file; naming another moves the same graph to a cluster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from dpo_pipeline.annotations.settings import AnnotationSettings
from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.core.settings import Settings
from dpo_pipeline.dpo.settings import DpoSettings
from dpo_pipeline.evaluation.settings import ChampionSettings, EvaluationSettings, SweepSettings
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings
from dpo_pipeline.preferences.settings import PreferenceSettings
from dpo_pipeline.profiles.operation import OperationSettings
from dpo_pipeline.release.settings import ReleaseSettings
from dpo_pipeline.sft.settings import SftSettings

FOLDER = Path(__file__).parent


class TrackingSettings(Settings):
    """How much the tracking server matters; shapes no artifact."""

    when_away: Literal["buffer", "refuse"] = "buffer"
    """MLflow away: `buffer` goes on, keeps all on disk and tells it later; `refuse` fails before any work is done."""


class Profile(Settings):
    """The settings of every stage, in the order of the data."""

    description: str
    """What the profile is for, in one sentence."""

    least_pairs: int = Field(default=1_000, ge=0)
    """Training pairs below which the check `enough_pairs` warns; hosted services name about 1,000 for DPO."""

    annotations: AnnotationSettings = AnnotationSettings()
    """How export files are read."""

    preferences: PreferenceSettings = PreferenceSettings()
    """How judgments become pairs."""

    model: ModelSettings
    """The base model and how text becomes tokens."""

    compute: ComputeSettings = ComputeSettings()
    """The machine."""

    sft: SftSettings = SftSettings()
    """Supervised fine-tuning."""

    dpo: DpoSettings = DpoSettings()
    """Direct preference optimization."""

    evaluation: EvaluationSettings = EvaluationSettings()
    """What the report measures."""

    sweep: SweepSettings = SweepSettings()
    """What a point of a sweep costs."""

    champion: ChampionSettings = ChampionSettings()
    """Who becomes champion."""

    release: ReleaseSettings = ReleaseSettings()
    """What a user takes away."""

    tracking: TrackingSettings = TrackingSettings()
    """The tracking server."""

    operation: OperationSettings = OperationSettings()
    """When drops are complete, when models are trained again, and from what."""

    @model_validator(mode="before")
    @classmethod
    def _tokenizer_of_the_model(cls, values: Any) -> Any:
        """Put the model's repository in place of the word `model` under `preferences.tokenizer`."""
        preferences = values.get("preferences") if isinstance(values, Mapping) else None
        if not isinstance(preferences, Mapping) or preferences.get("tokenizer") != "model":
            return values
        hub = values["model"].get("hub") if isinstance(values.get("model"), Mapping) else None
        if hub is None:
            message = "preferences.tokenizer is 'model', but model.hub names none; give the tokenizer's path and sha256"
            raise ValueError(message)
        return {**values, "preferences": {**preferences, "tokenizer": {"hub": hub}}}


def profile_names() -> list[str]:
    """The names of the bundled profiles."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_profile(name: str, *, overrides: Mapping[str, Any] | None = None) -> Profile:
    """A bundled profile by name, or one's own by the path of its YAML file.

    Args:
        name: `demo`, or `path/to/mine.yaml`.
        overrides: Values laid over the file's, nested like it: `{"dpo": {"beta": 0.2}}`.

    Raises:
        SettingsError: If there is no such profile, it is not YAML, or values do not fit; all faults at once.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise SettingsError(f"profile {name}", [f"there is no {path}; bundled are {', '.join(profile_names())}"])
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SettingsError(f"profile {name}", [f"the file is not YAML: {error}"]) from error
    if not isinstance(values, dict):
        raise SettingsError(f"profile {name}", ["the file holds no settings"])
    return Profile.parse(laid_over(values, overrides or {}), where=f"profile {name}")


def laid_over(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The values with the overrides in place of theirs; what both nest is laid over in turn."""
    result = dict(values)
    for name, value in overrides.items():
        both_nested = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
        result[name] = laid_over(result[name], value) if both_nested else value
    return result

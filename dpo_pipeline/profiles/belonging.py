"""Whether what lies in the home was made as this profile would make it: two profiles must not mix unnoticed."""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from dpo_pipeline.core.artifacts import Artifact
from dpo_pipeline.core.errors import ArtifactError
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile

SHOWN = 4


def refuse_other_profile(
    home: Home,
    artifact: Artifact,
    *,
    name: str,
    profile: Profile,
    sections: Collection[str] | None = None,
    do: str | None = None,
) -> None:
    """Refuse an input that another profile made, with settings that this one would not have given it.

    The name alone refuses nothing: tables that both profiles would make alike serve both. Nor do settings alone:
    editing a profile, or laying values over it for a run, is everybody's right. Values that only one of both knows
    (made by an earlier version of the code) do not count as a difference.

    Args:
        home: Whose ledger says under which profile the artifact was made last.
        artifact: The input.
        name: The run's profile, a name or a path; a path counts by its file's name without ending.
        profile: The run's settings.
        sections: Sections of the profile that count; absent: all that shaped the artifact.
        do: What the caller's user can do about it; absent: what the operator of a run can.

    Raises:
        ArtifactError: Naming both profiles and the settings that differ.
    """
    made_with, ours = artifact.manifest["settings"], profile.model_dump(mode="json")
    counted = (made_with.keys() & ours.keys()) if sections is None else (made_with.keys() & set(sections))
    differing = sorted(
        sentence for section in counted for sentence in _differing(made_with[section], ours[section], section)
    )
    if not differing:
        return
    maker = made_under(home, artifact)
    if maker is None or _short(maker) == _short(name):
        return
    name = _short(name)
    more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
    raise ArtifactError(
        f"{artifact.kind} {artifact.digest[:12]} was made under the profile {_short(maker)}, this run's is {name}; "
        f"they differ in {', '.join(differing[:SHOWN])}{more}",
        expected=f"an input made under {name}, or with the settings it gives",
        do=do
        or f"Give {name} a home of its own (DPO_PIPELINE_HOME), or materialize {artifact.kind} under {name} first",
    )


def made_under(home: Home, artifact: Artifact) -> str | None:
    """The profile of the newest finished attempt that gave an artifact, made or reused; None where none is known."""
    lines = [line for line in home.finished() if line["artifact"] == artifact.digest]
    if not lines:
        return None
    attempt = lines[-1]["attempt"]
    with home.ledger.path.open("rb") as stream:
        for text in stream:
            if b'"event":"started"' in text and (line := json.loads(text))["attempt"] == attempt:
                return line.get("profile")
    return None


def _short(name: str) -> str:
    """What a profile is called: the demo is `demo`, and `somewhere/mine.yaml` is `mine`."""
    return Path(name).name.removesuffix(".yaml").removesuffix(".yml")


def _differing(made_with: Any, ours: Any, where: str) -> Iterator[str]:
    if isinstance(made_with, Mapping) and isinstance(ours, Mapping):
        for key in made_with.keys() & ours.keys():
            yield from _differing(made_with[key], ours[key], f"{where}.{key}")
    elif made_with != ours:
        yield f"{where} ({made_with} there, {ours} here)"

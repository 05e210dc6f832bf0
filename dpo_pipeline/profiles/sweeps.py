"""A sweep's grid: which values of which settings of `dpo`, each point named by the values it sets.

A point's name says all about it (`beta=0.05 learning_rate=2e-05`), so that it is a partition a person can read and the
profile of a point is made from the name alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.core.home import Home
from dpo_pipeline.profiles import Profile

AXES: Mapping[str, tuple[str, ...]] = {
    "beta": ("beta",),
    "learning_rate": ("optimizer", "learning_rate"),
    "loss": ("loss",),
    "epochs": ("epochs",),
}
"""What a sweep may vary, and where in the section `dpo` of the profile it stands; in the order of a point's name."""


def points_of(grid: Mapping[str, Sequence[str]]) -> list[str]:
    """The names of every combination of the values, each once; an axis without values keeps the profile's own.

    >>> points_of({"beta": ["0.1", "0.10", "0.5"], "loss": ["ipo"]})
    ['beta=0.1 loss=ipo', 'beta=0.5 loss=ipo']

    Raises:
        SettingsError: If nothing is varied.
    """
    axes = [name for name in AXES if grid.get(name)]
    if not axes:
        raise SettingsError("the sweep", [f"nothing is varied; give values for {', '.join(AXES)}"])
    values = [dict.fromkeys(_plain(value) for value in grid[name]) for name in axes]
    return [
        " ".join(f"{name}={value}" for name, value in zip(axes, some, strict=True))
        for some in itertools.product(*values)
    ]


def values_of(point: str) -> dict[str, str]:
    """The values a point sets, by axis.

    >>> values_of("beta=0.1 loss=ipo")
    {'beta': '0.1', 'loss': 'ipo'}

    Raises:
        SettingsError: If that is no point's name.
    """
    parts = [part.partition("=") for part in point.split(" ")]
    names = [name for name, _, _ in parts]
    if not all(name in AXES and value for name, _, value in parts) or len(set(names)) < len(names):
        raise SettingsError(
            f"the sweep's point {point!r}", [f"a point is named like `beta=0.1 loss=ipo`, of {list(AXES)}"]
        )
    return {name: value for name, _, value in parts}


def profile_of_point(profile: Profile, point: str) -> Profile:
    """The profile with the point's values in its section `dpo`.

    Raises:
        SettingsError: Naming every value that does not fit.
    """
    values = profile.model_dump(mode="json")
    for name, value in values_of(point).items():
        *way, last = AXES[name]
        section: dict[str, Any] = values["dpo"]
        for step in way:
            section = section[step]
        section[last] = value
    return Profile.parse(values, where=f"the sweep's point {point!r}")


def about_how_long(home: Home, profile: Profile, points: Sequence[str]) -> str:
    """A sentence on how long the points take, from what training and evaluation took in this home."""
    training, evaluation = _worked(home, "dpo_checkpoint"), _worked(home, "evaluation_report")
    if training is None or evaluation is None:
        return "How long a point takes is not known: no DPO training and evaluation has been made in this home yet."
    checkpoint = home.store.get("dpo_checkpoint", training[0])
    epochs = float(checkpoint.manifest["settings"]["dpo"]["epochs"])
    profiles = [profile_of_point(profile, point) for point in points]
    seconds = sum(training[1] * each.dpo.epochs / epochs + evaluation[1] for each in profiles)
    return (
        f"About {_duration(seconds)}: in this home {epochs:g} epochs of DPO took {_duration(training[1])}, "
        f"an evaluation {_duration(evaluation[1])}."
    )


def _worked(home: Home, asset: str) -> tuple[str, float] | None:
    """Artifact and seconds of the newest attempt that made the asset; one that reused a result says nothing."""
    for line in reversed(home.finished()):
        remarks = line.get("remarks", {})
        if line.get("asset") == asset and not remarks.get("reused") and "seconds" in remarks:
            return line["artifact"], float(remarks["seconds"])
    return None


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else f"{seconds / 3600:.1f} h"


def _plain(value: str) -> str:
    """A number in its shortest form, so that equal points have equal names, none of it lost; anything else as it is.

    >>> _plain("0.10"), _plain("1.23456789e-5"), _plain("ipo")
    ('0.1', '1.23456789e-05', 'ipo')
    """
    try:
        number = float(value)
    except ValueError:
        return value
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)

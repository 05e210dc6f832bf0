"""Settings of operation: when a drop counts as complete, when models are trained again, and from what."""

import re
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from dpo_pipeline.core.settings import Settings


class OperationSettings(Settings):
    """When things happen by themselves; nothing here shapes an artifact, but for what a training starts from."""

    inbox_rest_seconds: float = Field(default=60.0, ge=0)
    """Seconds in which nothing may have changed in a drop without the file _COMPLETE before it is taken in."""

    retraining_cron: str = "0 3 * * *"
    """When the schedule `retraining` looks whether to train again: minute, hour, day, month, day of the week."""

    time_zone: str = "UTC"
    """The time zone of `retraining_cron`, such as Europe/Berlin."""

    new_pairs: int | None = Field(default=None, ge=1)
    """Training pairs added since the newest checkpoint at which `enough_new_pairs` trains again; absent: never."""

    start_from: Literal["base", "champion"] = "base"
    """What SFT starts from: the base model, or today's champion (the base model as long as there is none)."""

    @field_validator("retraining_cron")
    @classmethod
    def _five_fields(cls, line: str) -> str:
        if not re.fullmatch(r"[\d*/,\-]+( [\d*/,\-A-Za-z]+){4}", line):
            message = f"{line!r} is not a cron line of five fields, such as 0 3 * * * (every night at three)"
            raise ValueError(message)
        return line

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError) as error:
            message = f"{name!r} is no time zone; expected a name such as Europe/Berlin"
            raise ValueError(message) from error
        return name

"""Settings are frozen, described field by field, refuse unknown names and report all faults together."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.errors import SettingsError


class Settings(BaseModel):
    """Base of every stage's settings. Each field's description is a sentence with its unit."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def parse(cls, values: Any, *, where: str) -> Self:
        """Settings from plain values.

        Raises:
            SettingsError: Naming every value that does not fit, with what was found and expected.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(where, [_sentence(fault) for fault in error.errors()]) from error

    @property
    def digest(self) -> str:
        """The content digest of the resolved values."""
        return digest_of_json(self.model_dump(mode="json"))


def _sentence(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"]) or "the whole"
    if fault["type"] == "extra_forbidden":
        return f"{place} is not a known setting"
    if fault["type"] == "missing":
        return f"{place} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    sentence = f"{message[0].lower()}{message[1:]}"
    return f"{place}: {sentence}" if isinstance(fault["input"], dict) else f"{place} is {fault['input']!r}: {sentence}"

"""The settings of a profile as Dagster's launchpad shows them: every field described, none with a value of its own.

Built from the settings' classes, so that there is one text for the reference, the launchpad and the errors.
"""

import types
from enum import Enum
from functools import cache
from typing import Any, Literal, Optional, Union, get_args, get_origin

import dagster as dg
from pydantic import BaseModel, Field, create_model

PLAIN = (bool, int, float, str)


@cache
def changes_of(settings: type[BaseModel]) -> type[dg.Config]:
    """A configuration with the fields of `settings`, all of them absent unless somebody fills them in.

    A field that is a settings class itself becomes a configuration like this; one whose values are no plain scalars
    takes any YAML. What is wrong with a value is said by the settings, when they are resolved.
    """
    fields: dict[str, Any] = {
        name: (_kind(field.annotation), Field(default=None, description=field.description))
        for name, field in settings.model_fields.items()
    }
    return create_model(f"{settings.__name__}Changes", __base__=dg.Config, __doc__=_first_line(settings), **fields)


def _kind(annotation: Any) -> Any:
    """The launchpad's type for a field: a nested configuration, a scalar, or anything."""
    several = get_args(annotation) if get_origin(annotation) in {Union, types.UnionType} else (annotation,)
    kinds = [one for one in several if one is not type(None)]
    if len(kinds) != 1:
        return Any
    [kind] = kinds
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return Optional[changes_of(kind)]  # noqa: UP045 - a type made at run time
    if get_origin(kind) is Literal and all(isinstance(value, str) for value in get_args(kind)):
        return str | None
    if isinstance(kind, type) and issubclass(kind, Enum):
        return str | None
    return Optional[kind] if kind in PLAIN else Any  # noqa: UP045


def _first_line(settings: type[BaseModel]) -> str:
    return (settings.__doc__ or "").strip().partition("\n")[0]

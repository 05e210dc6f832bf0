"""Sequences whose items are made when they are asked for, so that a million of them are a few arrays in memory."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Lazy(Sequence[T]):
    """A sequence that knows how to make its item at a place; a slice is a list.

    >>> class Squares(Lazy[int]):
    ...     def __len__(self) -> int:
    ...         return 4
    ...
    ...     def item(self, place: int) -> int:
    ...         return place * place
    >>> Squares()[-1], Squares()[1:3], list(Squares())
    (9, [1, 4], [0, 1, 4, 9])
    """

    @abstractmethod
    def item(self, place: int) -> T:
        """The item at a place within the sequence, 0-based."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        """One item, or a list of those of a slice."""
        places = range(len(self))[index]
        return [self.item(place) for place in places] if isinstance(places, range) else self.item(places)

"""Which class of a source is meant by which class of a target: the one of the same name."""

from __future__ import annotations

from collections.abc import Sequence


def match_classes(target: Sequence[str], source: Sequence[str]) -> tuple[int | None, ...]:
    """Give each target class the index of the source's class of its name, case, underscores and spaces aside.

    None where there is no such class.
    """
    places = {plain(name): index for index, name in enumerate(source)}
    return tuple(places.get(plain(name)) for name in target)


def plain(name: str) -> str:
    """Write a class's name as it is compared."""
    return " ".join(name.replace("_", " ").casefold().split())

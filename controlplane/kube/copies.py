"""A copy of a list of objects, found by name and by what they are indexed under."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from controlplane.kube.resources import Object, name_of, namespace_of

Key = tuple[str, str]
"""Namespace (empty for what is in none) and name."""
NAMESPACE: Final = "namespace"
Index = Callable[[Object], str]


def key_of(found: Object) -> Key:
    """Under what an object is kept."""
    return namespace_of(found), name_of(found)


class Copies:
    """Objects by key. What is given out is the copy itself: nobody changes it.

    Args:
        indexes: by name, what of an object it is found by; "" leaves it out. ``namespace`` is always there.
    """

    def __init__(self, indexes: Mapping[str, Index] | None = None) -> None:
        self._indexes = {NAMESPACE: namespace_of, **(indexes or {})}
        self._objects: dict[Key, Object] = {}
        self._found: dict[tuple[str, str], dict[Key, None]] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self._objects.values()))

    def keys(self) -> set[Key]:
        """What is there."""
        return set(self._objects)

    def get(self, namespace: str, name: str) -> Object | None:
        """One object."""
        return self._objects.get((namespace, name))

    def by(self, index: str, value: str) -> list[Object]:
        """The objects that ``index`` finds under ``value``."""
        return [self._objects[key] for key in self._found.get((index, value), ())]

    def counts(self, index: str) -> dict[str, int]:
        """How many objects there are under each value of ``index``."""
        return {value: len(keys) for (its, value), keys in self._found.items() if its == index}

    def put(self, found: Object) -> Object | None:
        """Keep an object; the one that was there."""
        key = key_of(found)
        before = self.remove(key)
        self._objects[key] = found
        for place in self._places(found):
            self._found.setdefault(place, {})[key] = None
        return before

    def remove(self, key: Key) -> Object | None:
        """Forget an object; the one that was there."""
        before = self._objects.pop(key, None)
        for place in self._places(before) if before is not None else ():
            keys = self._found[place]
            keys.pop(key, None)
            if not keys:
                del self._found[place]
        return before

    def _places(self, found: Object) -> list[tuple[str, str]]:
        values = ((name, index(found)) for name, index in self._indexes.items())
        return [(name, value) for name, value in values if value]

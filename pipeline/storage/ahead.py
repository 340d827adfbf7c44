"""Reading ahead: a thread takes items from a source while their consumer is busy with others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over ``source`` in a thread that stays at most ``limit`` items ahead.

    An error of the source is raised to the consumer after the items that came before it. Use it as
    a context: the thread runs from enter, and takes nothing any more after exit.
    """

    def __init__(self, source: Iterable[T], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._items: deque[T] = deque()
        self._error: BaseException | None = None
        self._ended = False
        self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def settle(self, seconds: float) -> None:
        """Wait for the end of the source, but no longer than this, nor when the limit is reached;
        raise the error if that is how it ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._is_full, seconds)
            if self._error is not None:
                raise self._error

    @property
    def has_more(self) -> bool:
        """Whether the next item, or the end, is there without waiting."""
        with self._changed:
            return bool(self._items) or self._ended

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    @property
    def _is_full(self) -> bool:
        return len(self._items) >= self._limit

    def _read(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Append an item as soon as there is room; false when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or not self._is_full)
            if self._abandoned:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

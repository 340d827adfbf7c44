"""Reading ahead of the consumer, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from pipeline.sources.formats.item import Item

WINDOW_BYTES = 64 * 2**20
"""What encoded images may hold from before they are read until they are handed out."""
THREADS = 64

Hold = Callable[[int], None]
"""Called with the bytes that an item will hold in all, before they are read; waits until they
fit."""


class WindowClosedError(Exception):
    """The consumer has gone."""


class Window:
    """The bytes that numbered items hold; they are handed out in the order of their numbers.

    The item whose turn it is never waits, or nothing would move: at most ``limit`` bytes and one
    item are held, whatever the sizes are and however late they become known.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}
        self._total = 0
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def hold(self, number: int, size: int) -> None:
        """Wait until the item may hold ``size`` bytes in all.

        Raises:
            WindowClosedError: nobody wants it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._fits(number, size))
            if self._closed:
                raise WindowClosedError
            more = max(size - self._held.get(number, 0), 0)
            self._held[number] = self._held.get(number, 0) + more
            self._total += more

    def release(self, number: int) -> None:
        """The consumer is done with an item, and it is the next one's turn."""
        with self._changed:
            self._total -= self._held.pop(number, 0)
            self._turn = number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Wake whoever waits: nothing is wanted any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, number: int, size: int) -> bool:
        others = self._total - self._held.get(number, 0)
        return number == self._turn or others + size <= self.limit


def read_all_ahead(reads: Sequence[Callable[[Hold], Item]]) -> Iterator[Item]:
    """The items of all reads, in their order, read by threads within the window."""
    window = Window(WINDOW_BYTES)
    futures: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(min(THREADS, len(reads) or 1)) as threads:
        try:
            for number, read in enumerate(reads):
                futures.append(threads.submit(_read, read, window, number))
            for number in range(len(reads)):
                yield futures.popleft().result()
                window.release(number)
        finally:
            window.close()
            threads.shutdown(wait=False, cancel_futures=True)


def _read(read: Callable[[Hold], Item], window: Window, number: int) -> Item:
    return read(lambda size: window.hold(number, size))


def iterate_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, taken from their source by a thread that runs ahead within the window."""
    window = Window(WINDOW_BYTES)
    ready: SimpleQueue[Item | BaseException | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(_produce, items, window, ready)
            number = 0
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
                window.release(number)
                number += 1
        finally:
            window.close()


def _produce(
    items: Iterator[Item], window: Window, ready: SimpleQueue[Item | BaseException | None]
) -> None:
    try:
        for number, item in enumerate(items):
            window.hold(number, len(item.data or b""))
            ready.put(item)
        ready.put(None)
    except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
        ready.put(error)

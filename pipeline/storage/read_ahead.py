"""Reading ahead of the consumer, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar, cast

WINDOW_BYTES = 64 * 2**20
"""What encoded images may hold from before they are read until they are handed out."""
THREADS = 64
SLOW_SECONDS = 0.002
"""A read that takes longer has waited: for a disk, a network, or its turn on a busy core."""
_READERS = 16

T = TypeVar("T")

Hold = Callable[[int], None]
"""Called with the bytes that an element will hold in all, before they are read; waits until they
fit."""


class Ahead(Generic[T]):
    """Iterates over ``source`` in a thread that stays at most ``limit`` elements ahead.

    An error of the source is raised to the consumer after the elements that came before it. Use it
    as a context: the thread runs from enter; after exit it takes nothing any more, and closes a
    generator.
    """

    def __init__(self, source: Iterable[T], limit: int) -> None:
        self._source = source
        self._limit = limit
        self._waiting: deque[T] = deque()
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

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for the end of the source, but no longer than this, nor when the limit is reached;
        raise the error if that is how it ended. Returns whether it has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._is_full, seconds)
            if self._error is not None:
                raise self._error
            return self._ended

    @property
    def is_ready(self) -> bool:
        """Whether the next element, or the end, is there without waiting."""
        with self._changed:
            return bool(self._waiting) or self._ended

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    break
                element = self._waiting.popleft()
                self._changed.notify_all()
            yield element
        if self._error is not None:
            raise self._error

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= self._limit

    def _read(self) -> None:
        try:
            for element in self._source:
                if not self._put(element):
                    break
            if isinstance(self._source, Generator):  # whoever holds this keeps no threads of it
                self._source.close()
        except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, element: T) -> bool:
        """Append an element as soon as there is room; false when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or not self._is_full)
            if self._abandoned:
                return False
            self._waiting.append(element)
            self._changed.notify_all()
            return True


class WindowClosedError(Exception):
    """The consumer has gone."""


class Window:
    """The bytes that numbered elements hold; they are handed out in the order of their numbers.

    The element whose turn it is never waits, or nothing would move: at most ``limit`` bytes and one
    element are held, whatever the sizes are and however late they become known.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[int, int] = {}
        self._total = 0
        self._turn = 0
        self._closed = False
        self._changed = threading.Condition()

    def hold(self, number: int, size: int) -> None:
        """Wait until the element may hold ``size`` bytes in all.

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
        """The consumer is done with an element, and it is the next one's turn."""
        with self._changed:
            self._total -= self._held.pop(number, 0)
            self._turn = number + 1
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether nothing is wanted any more."""
        return self._closed

    def close(self) -> None:
        """Wake whoever waits: nothing is wanted any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, number: int, size: int) -> bool:
        others = self._total - self._held.get(number, 0)
        return number == self._turn or others + size <= self.limit


def read_ahead_if_slow(reads: Sequence[Callable[[Hold], T]]) -> Iterator[T]:
    """The elements of all reads, in their order.

    The consumer's thread carries them out as long as they are fast, as those of cached files are:
    to hand one over from another thread takes twice as long as to read it. From the first slow one
    on they are read ahead.
    """
    for number, read in enumerate(reads):
        started = time.perf_counter()
        element = read(_one_at_a_time)
        took = time.perf_counter() - started
        yield element
        if took > SLOW_SECONDS:
            yield from read_all_ahead(reads[number + 1 :])
            return


def _one_at_a_time(size: int) -> None:
    """Nothing else is held."""


def read_all_ahead(reads: Sequence[Callable[[Hold], T]]) -> Iterator[T]:
    """The elements of all reads, in their order, read by threads within the window."""
    window = Window(WINDOW_BYTES)
    numbers = iter(range(len(reads)))  # shared by the threads: each takes the next one
    ended: SimpleQueue[tuple[int, _Outcome[T]]] = SimpleQueue()
    early: dict[int, _Outcome[T]] = {}
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            for _ in range(min(THREADS, len(reads))):
                threads.submit(_read_on, reads, numbers, window, ended)
            for number in range(len(reads)):
                while number not in early:
                    early.update([ended.get()])
                yield early.pop(number).result()
                window.release(number)
        finally:
            window.close()


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """Of a read."""

    element: T | None = None
    error: BaseException | None = None

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        return cast(T, self.element)


def _read_on(
    reads: Sequence[Callable[[Hold], T]],
    numbers: Iterator[int],
    window: Window,
    ended: SimpleQueue[tuple[int, _Outcome[T]]],
) -> None:
    """Carry out one read after the other. A future for each would take half as long as to read a
    small file."""
    for number in numbers:
        if window.is_closed:
            return
        try:
            outcome = _Outcome(reads[number](partial(window.hold, number)))
        except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
            outcome = _Outcome(error=error)
        ended.put((number, outcome))
        del outcome  # the consumer's alone from now on, or it would outlast its part of the window


def iterate_ahead(elements: Iterator[T], size_of: Callable[[T], int]) -> Iterator[T]:
    """The same elements, taken from their source by a thread that runs ahead within the window.

    ``size_of`` an element are the bytes that it holds.
    """
    window = Window(WINDOW_BYTES)
    ready: SimpleQueue[T | BaseException | None] = SimpleQueue()
    with ThreadPoolExecutor(1) as thread:
        try:
            thread.submit(_produce, elements, size_of, window, ready)
            number = 0
            while (element := ready.get()) is not None:
                if isinstance(element, BaseException):
                    raise element
                yield element
                window.release(number)
                number += 1
        finally:
            window.close()


def _produce(
    elements: Iterator[T],
    size_of: Callable[[T], int],
    window: Window,
    ready: SimpleQueue[T | BaseException | None],
) -> None:
    try:
        for number, element in enumerate(elements):
            window.hold(number, size_of(element))
            ready.put(element)
        ready.put(None)
    except BaseException as error:  # noqa: BLE001  # it is the consumer's to handle
        ready.put(error)


def map_ahead(function: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
    """Results in order, computed by threads that run no further ahead than their number."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(_READERS) as readers:
        for name in names:
            waiting.append(readers.submit(function, name))
            if len(waiting) > _READERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def together(call: Callable[[], T], *others: Callable[[], Any]) -> tuple[T, *tuple[Any, ...]]:
    """What these calls return, which wait for the storage at the same time, the first of them in
    this thread. All end before an error of one is raised."""
    with ThreadPoolExecutor(len(others)) as threads:
        waiting = [threads.submit(other) for other in others]
        return call(), *(future.result() for future in waiting)

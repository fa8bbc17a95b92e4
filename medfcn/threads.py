"""Work on several items at a time, in threads, as far as memory allows."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

from medfcn.errors import MemoryShortError
from medfcn.memory import is_room
from medfcn.systems import address_limit

_THREAD_BYTES = 1 << 25
Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_threads(
    work: Callable[[Item], Outcome], items: Sequence[Item], *, threads: int, advance: Callable[[Item], None]
) -> list[Outcome | MemoryShortError]:
    """The outcome of some work on each item, in their order; several are worked on at a time.

    An item for which memory ran out is worked on again by itself once the others are done. If memory runs out again,
    its outcome is the error. Where the address space is limited, items are worked on one by one: OpenBLAS takes
    a buffer for each thread that multiplies at the same time, and ends the process where it finds none.

    Args:
        work: Called by several threads at once.
        items: They are given to it in this order.
        threads: Number of items that are worked on at a time.
        advance: Called with each item that is done.
    """
    outcomes: list[Outcome | MemoryShortError] = []

    def attempt(item: Item) -> Outcome | MemoryShortError:
        try:
            return work(item)
        except MemoryShortError as error:
            return error.with_traceback(None)

    with ExitStack() as stack:
        found: Iterator[Outcome | MemoryShortError] = map(attempt, items)
        if threads > 1 and address_limit() is None and is_room_for_threads(threads):
            pool = ThreadPoolExecutor(max_workers=threads)
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            found = pool.map(attempt, items)
        for item, outcome in zip(items, found, strict=True):
            outcomes.append(outcome)
            if not isinstance(outcome, MemoryShortError):
                advance(item)
    for place, item in enumerate(items):
        if isinstance(outcomes[place], MemoryShortError):
            outcomes[place] = attempt(item)
            advance(item)
    return outcomes


def is_room_for_threads(count: int) -> bool:
    """True if so many threads can be started: Python 3.11 waits for ever for one that finds no memory."""
    return is_room(count * _THREAD_BYTES)

"""Hands the cases of a batch out to the processes that work on it, and takes their outcomes."""

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from medfcn.datasets import Case
from medfcn.inference.batch import Outcome

_KILLS_MOST = 3
"""A case has failed if processes that worked on it were killed this often: it needs too much memory, most likely."""


class CaseQueue:
    """The cases of a batch that are waiting, and those that each process holds. Threads may use it at once.

    Args:
        cases: The cases.
        report: Called with each outcome, never by two threads at once.
    """

    def __init__(self, cases: Sequence[Case], report: Callable[[Outcome], None]) -> None:
        self._changed = threading.Condition()
        self._waiting = deque(cases)
        self._held: dict[int, list[Case]] = {}
        self._kills: Counter[str] = Counter()
        self._report = report
        self._problem: BaseException | None = None

    def __len__(self) -> int:
        """Number of cases that nobody holds."""
        return len(self._waiting)

    def join(self, holder: int) -> None:
        """Let a process hold cases, by a number of its own."""
        with self._changed:
            self._held.setdefault(holder, [])

    def take(self, holder: int, *, is_needed: bool, wait: bool = False) -> Case | None:
        """The next case; None if there is none.

        Args:
            holder: The process that will hold it.
            is_needed: False for a case that it would only put aside. The last cases are kept for those who need one.
            wait: Wait for the cases of others, who may be killed; None means that all cases have an outcome.

        Raises:
            BaseException: The one of `fail`.
        """
        with self._changed:
            while True:
                if self._problem is not None:
                    raise self._problem
                if self._waiting and (is_needed or len(self._waiting) >= len(self._held)):
                    case = self._waiting.popleft()
                    self._held[holder].append(case)
                    return case
                if not wait or not any(cases for number, cases in self._held.items() if number != holder):
                    return None
                self._changed.wait()

    def give(self, holder: int, outcome: Outcome) -> None:
        """Take the outcome of a case that a process holds."""
        with self._changed:
            self._held[holder] = [case for case in self._held[holder] if case.id != outcome.case]
            if outcome.kind == "others" and self._kills[outcome.case]:
                # Its first process wrote the record, and was killed before it could say so.
                outcome = replace(outcome, kind="predicted")
            self._report(outcome)
            self._changed.notify_all()

    def lose(self, holder: int) -> None:
        """Take back the cases of a process that is gone. It worked on the first of them when it ended."""
        with self._changed:
            cases = self._held.pop(holder, [])
            self._kills.update(case.id for case in cases[:1])
            if cases and self._kills[cases[0].id] >= _KILLS_MOST:
                case = cases.pop(0)
                times = f"the processes that worked on it were killed {_KILLS_MOST} times"
                self._report(Outcome(case.id, "failed", f"{case.id}: {times}; most likely it needs too much memory"))
            self._waiting.extendleft(reversed(cases))
            self._changed.notify_all()

    def fail(self, problem: BaseException) -> None:
        """End the work: whoever takes the next case gets this error."""
        with self._changed:
            self._problem = self._problem or problem
            self._changed.notify_all()

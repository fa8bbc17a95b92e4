"""A Dask cluster: a scheduler that is running somewhere, and worker processes that it gives work to.

Dask's messages are pickles: whoever can reach the scheduler can run code on all its machines. Its network must be
trusted.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from medfcn.errors import MedfcnError, SettingsError, as_command, command_name
from medfcn.libraries import require_installed
from medfcn.text import counted

_CONNECT_SECONDS = 30


class LostError(MedfcnError):
    """Work whose processes were killed, as often as the scheduler tries it."""

    default_code = "PROCESS_FAILED"


class Cluster:
    """A connection to a scheduler; see `connected`.

    Args:
        client: The `distributed.Client`.
        address: The address that was given, for messages.
    """

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address

    def __str__(self) -> str:
        count = len(self._workers())
        return f"cluster {self._address}: {counted(count, 'worker')}" + ("" if count else " yet; waits for one")

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        workers: Mapping[str, Mapping[str, Any]] = self._client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def places(self) -> dict[str, int]:
        """The number of each worker among those of its machine, by its address or, if it has one, its nanny's.

        The nanny stays when its worker is killed and started again.
        """
        machines: dict[str, list[str]] = {}
        for address, worker in self._workers().items():
            machines.setdefault(str(worker.get("host")), []).append(str(worker.get("nanny") or address))
        return {name: number for names in machines.values() for number, name in enumerate(sorted(names))}

    def each(
        self, work: Callable[..., Any], shared: bytes, items: Mapping[str, tuple[Any, ...]]
    ) -> Iterator[tuple[str, Any]]:
        """Have work done for each item, and give the results as they come.

        A worker that dies has its work done again by another. So the work must be repeatable, and write by rename.

        Args:
            work: A function of a module that the workers have too. It is called with `shared` and an item's values.
            shared: The same for all items. It is sent to each worker once.
            items: The values of each item, by name.

        Yields:
            The name of an item, and its result or a `LostError`.

        Raises:
            MedfcnError: The scheduler is gone, or a worker cannot do the work at all.
        """
        from distributed import as_completed

        token = secrets.token_hex(6)
        # A task gives it, and no scattered data: those are lost with their worker.
        ready = self._client.submit(_as_it_is, shared, key=f"medfcn-shared-{token}")
        names = {
            self._client.submit(_under, command_name(), work, ready, *values, key=f"medfcn-{token}-{number}"): name
            for number, (name, values) in enumerate(items.items())
        }
        try:
            for future in as_completed(list(names), loop=self._client.loop):
                yield names.pop(future), self._result_of(future)
        finally:
            if names:
                self._client.cancel(list(names))

    def _result_of(self, future: Any) -> Any:
        from distributed import KilledWorker

        if future.status == "finished":
            return future.result()
        error = future.exception() if future.status == "error" else None
        if isinstance(error, KilledWorker):
            times = f"the processes that worked on it were killed {error.allowed_failures + 1} times"
            return LostError(f"{times}; most likely it needs too much memory")
        if error is None:
            problem = "the scheduler is gone, or has dropped the work; go on with the same command and --resume"
        else:
            problem = f"a worker cannot do the work ({type(error).__name__}: {error}); install the same medfcn there"
        raise MedfcnError(f"cluster {self._address}: {problem}", code="CLUSTER_FAILED", field="cluster")


def _as_it_is(shared: bytes) -> bytes:
    return shared


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a running scheduler.

    Args:
        address: Such as `tcp://10.0.0.1:8786`, or the path of the scheduler file that the scheduler writes.

    Raises:
        MissingFileError: Dask is not installed.
        SettingsError: No scheduler answers there.
    """
    require_installed("cluster")
    import distributed

    where: dict[str, Any] = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = distributed.Client(**where, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise SettingsError(
            f"cluster {address}: no scheduler answers there; start one (`dask scheduler`), and give its address or "
            "the path of its scheduler file",
            field="cluster",
        ) from error
    try:
        yield Cluster(client, address)
    finally:
        client.close()


def own_number(places: Mapping[str, int]) -> int:
    """The number of the worker that calls, among those of its machine; 0 if it came later or there is no cluster."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return 0
    nanny = getattr(worker, "nanny", None)
    return places.get(str(getattr(nanny, "address", nanny) or worker.address), 0)


def _under(command: str, work: Callable[..., Any], *values: Any) -> Any:
    """Work in a worker, whose messages are those of the command or the call that sent it."""
    with as_command(command) if command else nullcontext():
        return work(*values)

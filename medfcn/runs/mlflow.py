"""MLflow: a database in the run folder, or a server whose address is given."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

from medfcn.decoding import read_json
from medfcn.errors import TrainingError
from medfcn.files import make_inner_folder, write_json

_EXPERIMENT = "medfcn"
_PARAMETERS_MOST, _VALUE_MOST = 100, 500
"""Parameters that MLflow takes at once, and characters of a value."""
_METRIC = "loss"


class MlflowTracker:
    """Writes a run of MLflow. A training that goes on goes on in the same run, from the last step that it has.

    Args:
        folder: Where the number of MLflow's run is kept and, without an address, the database and the artifacts.
        address: Of a server, such as `http://server:5000`; empty for a database in `folder`.
        name: The run's name.
    """

    def __init__(self, folder: Path, address: str, *, name: str) -> None:
        os.environ.update(MLFLOW_DISABLE_TELEMETRY="true")  # before it is imported: it reports its use otherwise
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        make_inner_folder(folder)
        self._metric, self._parameter = Metric, Param
        self._file, self._name, self._run = folder / "run.json", name, ""
        self._is_local = not address
        self._artifacts = (folder / "artifacts").resolve()
        self._client = MlflowClient(address or f"sqlite:///{(folder / 'mlflow.db').resolve()}")

    def begin(self, facts: Mapping[str, str]) -> int:
        """See `Tracker`."""
        last = self._last_step()
        if last is not None:
            self._client.update_run(self._run, status="RUNNING")
            return last
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        place = self._artifacts.as_uri() if self._is_local else None
        number = (
            found.experiment_id if found else self._client.create_experiment(_EXPERIMENT, artifact_location=place)
        )
        self._run = self._client.create_run(number, run_name=self._name).info.run_id
        parameters = [self._parameter(name, value[:_VALUE_MOST]) for name, value in facts.items()]
        for first in range(0, len(parameters), _PARAMETERS_MOST):
            self._client.log_batch(self._run, params=parameters[first : first + _PARAMETERS_MOST])
        write_json(self._file, {"run": self._run})
        return -1

    def _last_step(self) -> int | None:
        """The last step of the run that was begun here; None if there is none any more."""
        try:
            self._run = read_json(self._file, dict[str, str], error=TrainingError, remedy="it is made again")["run"]
            history = self._client.get_metric_history(self._run, _METRIC)
        except Exception:  # the run was removed, or is on another server
            return None
        return max((metric.step for metric in history), default=-1)

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker`."""
        now = int(time.time() * 1000)
        self._client.log_batch(
            self._run, metrics=[self._metric(name, value, now, step) for name, value in numbers.items()]
        )

    def add_picture(self, step: int, path: Path) -> None:
        """See `Tracker`."""
        self._client.log_artifact(self._run, str(path), "pictures")

    def end(self, *, is_finished: bool) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self._run, status="FINISHED" if is_finished else "KILLED")

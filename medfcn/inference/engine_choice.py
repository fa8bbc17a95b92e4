"""The engine and the precision of an output folder: chosen once, and kept by whoever works in it later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medfcn.files import make_folder
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.self_test import settle
from medfcn.labels.sidecar import ENGINE
from medfcn.progress import Progress
from medfcn.runs.arithmetic import AUTO, StatedArithmetic, Wanted
from medfcn.volumes import Volume


@dataclass(frozen=True)
class EngineChoice:
    """The choice of the engine and the precision for an output.

    Attributes:
        wanted: As requested, or as the output began.
        output: The output folder, or the file of its only mask.
        is_one_file: True if it is a mask's own file.
        is_begun: Something may be stated in it, which then holds.
        lines: What to report of the choice.
    """

    wanted: Wanted
    output: Path
    is_one_file: bool
    is_begun: bool
    lines: list[str]

    @classmethod
    def of(cls, wanted: Wanted, output: Path, *, is_one_file: bool, is_begun: bool) -> EngineChoice:
        """Read what is stated in an output, before anything else is done.

        Raises:
            OutputExistsError: Something else is requested.
            SettingsError: What is stated cannot be read.
        """
        begun = StatedArithmetic(output, is_one_file=is_one_file).read() if is_begun else None
        if begun is not None:
            wanted.refuse_other(begun, output)
            wanted = Wanted(begun.engine, begun.precision, begun.folded)
        is_told = begun is not None and begun.engine != ENGINE
        lines = [f"goes on with {begun}, as {output.name} began"] if is_told else []
        return cls(wanted, output, is_one_file, is_begun, lines)

    def made(self, models: Ensemble, volumes: Callable[[], Sequence[Volume]], *, threads: int) -> Ensemble:
        """The models, run as this machine and the output want it.

        Args:
            models: As they were loaded.
            volumes: Gives a case's channels, if engines are to be tried.
            threads: CPU threads.

        Raises:
            MissingFileError: The library is not installed.
            SettingsError: This machine cannot do it.
            ModelError: The library cannot run the network.
        """
        settled = settle(self.wanted, models.models, volumes() if self.wanted.engine == AUTO else (), threads=threads)
        if settled.line:
            self.lines.append(settled.line)
        return models.run_by(settled.arithmetic, threads=threads)

    def state(self, models: Ensemble, progress: Progress, *, threads: int) -> Ensemble:
        """State in the output folder how its models are run.

        Args:
            models: From `made`.
            progress: Where a choice is reported.
            threads: CPU threads.

        Returns:
            The models, run as another process has stated it if that was the first.

        Raises:
            OutputExistsError: That is not what is requested here.
            WriteError: The folder cannot be written to.
        """
        chosen = models.models[0].arithmetic
        for line in self.lines:
            progress.say(line)
        if self.is_one_file:
            return models
        make_folder(self.output)
        held = StatedArithmetic(self.output).state(chosen, anew=not self.is_begun)
        self.wanted.refuse_other(held, self.output)
        return models.run_by(held, threads=threads)

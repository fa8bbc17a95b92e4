"""The run that is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medfcn.datasets.tables import read_text
from medfcn.decoding import read_json
from medfcn.errors import ModelError
from medfcn.exporting.model_card import model_card
from medfcn.exporting.phantom import Phantom, phantoms
from medfcn.inference.card_facts import require_summary
from medfcn.inference.ensemble import Ensemble
from medfcn.inference.model import Model
from medfcn.runs.folder import SUMMARY_FILE, RunFolder
from medfcn.runs.models import MODEL_CARD, ModelFiles, models_of

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms


@dataclass(frozen=True)
class Source:
    """A run in memory, with what its card says to people.

    Attributes:
        run: As it was given.
        files: The files of each network.
        loaded: The networks, on the CPU.
        name: Of the model.
        about: Markdown on the data and their licence.
        scores_in: A folder of scores that the card has instead of those of the run.
        transforms: The MONAI transforms that the run was trained with, if its card cannot hold them.
    """

    run: Path
    files: tuple[ModelFiles, ...]
    loaded: Ensemble
    name: str
    about: str | None = None
    scores_in: Path | None = None
    transforms: Transforms | None = None

    @classmethod
    def of(
        cls,
        run: Path | str,
        *,
        name: str,
        about: Path | str | None,
        scores_in: Path | str | None = None,
        transforms: Transforms | None = None,
    ) -> Source:
        """Load a run.

        Raises:
            MissingFileError: It is not there.
            ModelError: It cannot be loaded.
            SettingsError: The text about the data cannot be read.
        """
        files = models_of(run)
        loaded = Ensemble([Model.load(each, device="cpu", transforms=transforms) for each in files])
        text = None if about is None else read_text(Path(about))
        return cls(Path(run), files, loaded, name, text, None if scores_in is None else Path(scores_in), transforms)

    @cached_property
    def phantoms(self) -> list[Phantom]:
        """Phantoms, and what the run finds in them."""
        return phantoms(self.loaded)

    @cached_property
    def scores(self) -> Mapping[str, Any]:
        """The summary of all folds if there is one, else that of the only network."""
        if self.scores_in is not None:
            return _summary_in(self.scores_in / SUMMARY_FILE)
        summary = RunFolder(self.run).summary
        if len(self.files) > 1 and summary.is_file():
            return _summary_in(summary)
        return self.loaded.card.validation if len(self.files) == 1 else {}

    @cached_property
    def text(self) -> str:
        """`card.md`; that of a `.medfcn` file is kept, unless a text about the data is given."""
        kept = None if self.files[0].inside is None else self.files[0].inside.get(MODEL_CARD)
        if kept is not None and self.about is None:
            return kept.read().decode("utf-8", errors="replace")
        cards = [model.card for model in self.loaded.models]
        chosen = cards[0].chosen_on_validation if self.scores_in is None and len(cards) == 1 else ()
        return model_card(self.name, cards, self.scores, self.about, chosen=chosen)


def _summary_in(path: Path) -> Mapping[str, Any]:
    remedy = "remove the file, or train again"
    summary = read_json(path, dict[str, Any], error=ModelError, remedy=remedy)
    require_summary(summary, source=path.name, remedy=remedy)
    return summary

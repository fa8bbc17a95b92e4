"""The options of a prediction, and what they are resolved to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from medfcn.calls import require_one
from medfcn.datasets.tables import Ids
from medfcn.errors import SettingsError
from medfcn.inference.batch import MASK_ENDINGS
from medfcn.inference.case import READ_STRICTLY
from medfcn.inference.devices import require_threads
from medfcn.inference.naming import BidsNames, MaskNames
from medfcn.progress import Progress
from medfcn.runs.arithmetic import Wanted
from medfcn.runs.models import Runs
from medfcn.runs.shards import Shard
from medfcn.volumes import ReadOptions

if TYPE_CHECKING:
    from medfcn.monai.case_transforms import Transforms

Sidecars = Sequence[Path | str] | Path | str
"""`<case>.json` files beside masks, or folders of them."""


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """The options of `predict`.

    Attributes:
        runs: Run folders, `.medfcn` files, or names that `medfcn models` lists; several are an ensemble.
        source: A volume's file, a folder of them, or a data set; see `medfcn.datasets.find_inputs`.
        output: The folder for `<case>.nii.gz` and `<case>.json`, and for `confidence.csv`, which lists the cases with
            the lowest expected Dice first. For one volume it may be the mask's own file, ending in `.nii` or
            `.nii.gz`.
        probabilities: Also write `probabilities/<case>.nii.gz`, or `<case>_<value>.nii.gz` for several labels; where
            these overlap, `<case>_<index>.nii.gz`.
        tta: Average over mirror images; None follows the model's settings.
        views: Some of the views that the models were trained on, such as `coronal`; None takes all.
        cases: Ids of the cases to predict, or of patients with all theirs, or a file of them; None takes all.
        options: What to accept when reading volumes that are otherwise refused.
        overwrite: Replace existing masks.
        resume: Keep the masks that these models made of the same input with the same settings; make the others.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        engine: The library that runs the networks: `torch` (the default), `onnx`, `openvino`, or `auto` for the
            fastest that makes the same masks here. It is chosen once for an output folder, and kept by whoever works
            in it later.
        precision: `float32` (the default), `bfloat16`, or `auto` for bfloat16 where the training found it as good and
            the processor has it. Chosen once, as the engine.
        fold_norm: Fold batch normalisation into the convolutions before it, where torch runs in float32; None does,
            except in an output that began without.
        threads: CPU threads of torch. Another number can change a probability by 1e-6, so the default is one, and
            the `.json` beside a mask records the number.
        jobs: Number of processes, of `threads` threads each, that share the cases. A mask does not depend on it. None
            begins with one; others join if there are cores, memory and work for them, which is reported in a line.
        shard: `i/N`: predict only the i-th of N parts of the cases, for N commands on as many machines, which write
            into one output and need no locks. The one that finds that all have ended writes the folder's tables.
        finish: Only write the tables of a folder whose shards have all ended, where none of them did.
        cluster: The address of a Dask scheduler, or the path of its scheduler file: its workers predict the cases.
            They must see the same files under the same names.
        label_table: Write a label table (values, names, colours) and the intent code of labels into the header of
            masks, which viewers show.
        colours: Colours by label, such as `{"organ": "#E69F00"}` or `"organ=#E69F00"`; by default those of a palette.
        uncertainty: Also write, for each label, `uncertainty/<case>_entropy.nii.gz` (of the mean probability, bits)
            and `<case>_disagreement.nii.gz` (of folds, views and mirror images), on the volume's own grid.
        seg_nrrd: Also write `seg_nrrd/<case>.seg.nrrd`, a segmentation of 3D Slicer.
        again: `<case>.json` files, or folders of them: their masks are made again, byte for byte. Everything but the
            files comes from them, and RUN and INPUT are searched for the models and volumes by hash.
        format: `bids` names masks and probabilities as BIDS derivatives, with `dataset_description.json` and
            `dseg.tsv`, and puts the tables into `logs/`; the cases need names of BIDS. `dicom-seg` or `rtstruct` also
            writes each mask as a DICOM object that refers to its series, `<case>.dcm`; every volume must be a DICOM
            series. With `probabilities`, `dicom-seg` also writes `probabilities/<case>.dcm`.
        codes: Coded concepts of labels for `dicom-seg`, such as `gtv=SCT:86049000:Malignant neoplasm, primary`.
        transforms: The MONAI transforms that the runs were trained with, if their cards cannot hold them.
        report: Also write `report.html`: the masks over the volumes.
        progress: Where messages and progress are reported.
    """

    runs: Runs = field(kw_only=False)
    source: Path | str = field(kw_only=False)
    output: Path | str = field(kw_only=False)
    probabilities: bool = False
    tta: bool | None = None
    views: str | Sequence[str] | None = None
    cases: Ids | None = None
    options: ReadOptions = READ_STRICTLY
    overwrite: bool = False
    resume: bool = False
    device: str = "auto"
    engine: str | None = None
    precision: str | None = None
    fold_norm: bool | None = None
    threads: int = 1
    jobs: int | None = None
    shard: str | None = None
    finish: bool = False
    cluster: str | None = None
    label_table: bool = True
    colours: Mapping[str, str] | str | None = None
    uncertainty: bool = False
    seg_nrrd: bool = False
    again: Sidecars | None = None
    format: str = "nifti"
    codes: str = ""
    transforms: Transforms | None = None
    report: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise SettingsError(f"jobs {self.jobs}: at least 1 is needed; give a larger number", field="jobs")
        require_threads(self.threads)
        require_one(shard=self.shard, finish=self.finish or None, cluster=self.cluster)
        require_one(jobs=self.jobs, cluster=self.cluster)
        require_one(shard=self.shard, report=self.report or None)
        if (self.shard or self.finish) and Path(self.output).name.endswith(MASK_ENDINGS):
            raise SettingsError(f"{self.output}: shards fill a folder; give one to -o", field="output")
        self._require_names_of_bids()

    def _require_names_of_bids(self) -> None:
        """SettingsError for an output that BIDS has no name for."""
        if self.format != "bids":
            return
        if Path(self.output).name.endswith(MASK_ENDINGS):
            raise SettingsError(f"{self.output}: a BIDS derivative is a folder; give one to -o", field="output")
        given = {"uncertainty": self.uncertainty, "seg_nrrd": self.seg_nrrd}
        for name in (name for name, is_given in given.items() if is_given):
            raise SettingsError(
                f"format bids: BIDS has no name for {name}; leave it out, or predict it into another folder",
                code="OPTIONS_TOGETHER",
                field="format",
            )

    @property
    def names(self) -> MaskNames:
        """The names of files in the output."""
        return BidsNames(Path(self.output)) if self.format == "bids" else MaskNames()

    @property
    def wanted(self) -> Wanted:
        """The requested engine and precision."""
        return Wanted(self.engine, self.precision, self.fold_norm)

    @property
    def chosen_shard(self) -> Shard | None:
        """The part of the cases to predict; None for all."""
        return None if self.shard is None else Shard.parse(self.shard)

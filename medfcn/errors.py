"""The errors of medfcn.

Every error that a user can cause is one of these. Its text is one line: the file or case, the field, what was found,
what was expected, and what to do. Its `code` says the same to a program and stays when the words change; its `field`
names the header field, setting or column.

    MedfcnError
    ├── VolumeError             (ValueError)         a file that cannot be trusted to be the volume it claims
    │   ├── GeometryError                            its transforms are absent, broken or contradict each other
    │   └── LabelError                               its voxels are not the labels they should be
    ├── GeometryMismatchError   (ValueError)         two grids that must be one are not
    ├── DatasetError            (ValueError)         a folder or table that cannot be read as a data set
    ├── SettingsError           (ValueError)         a setting that does not exist, or a value it cannot have
    ├── ModelError              (ValueError)         weights or a run folder that cannot be loaded or do not fit
    ├── MissingFileError        (FileNotFoundError)  a file or folder that is not there
    ├── OutputExistsError       (FileExistsError)    something would be overwritten
    ├── WriteError              (OSError)            an output that the disk or the system does not take
    ├── MemoryShortError        (MemoryError)        too little memory for one case, or for one step
    └── TrainingError           (RuntimeError)       training that cannot go on
        ├── TrainingStoppedError                     training that stopped on request
        └── ProcessError                             training in several processes, of which one failed

The codes, which `medfcn check --json` reports too:

    FILE_MISSING         There is no such file or folder.
    FILE_NOT_FETCHED     The file is a link or pointer of DataLad, git-annex or DVC whose content is not there.
    FILE_NOT_REGULAR     It is a folder, a pipe, a socket or a device.
    FILE_UNREADABLE      The operating system cannot open or read the file.
    FILE_EMPTY           The file has no bytes.
    FILE_NAME            The file's name and its content are of different kinds.
    FILE_KIND            The file is not a volume of a kind that medfcn reads.
    FILE_CUT_OFF         The file ends too early.
    FILE_DAMAGED         The compressed stream is damaged.
    FILE_SIZE            The file has more bytes than its header describes, or more than the limit.
    HEADER_DAMAGED       A header field has a value that no tool writes, or is given twice.
    HEADER_OFFSET        The header places the voxels where they cannot be.
    HEADER_TEXT          The header contains text that looks like patient data.
    VOLUME_REFUSED       The file or array is not a volume.
    VOXELS_TYPE          The voxels are not single real numbers.
    VOXELS_SCALING       The slope or intercept is not a number.
    VOXELS_NOT_FINITE    Voxels are NaN or infinite.
    VOXELS_RANGE         A voxel is beyond the range of float32.
    VOXELS_CONTRADICTED  SimpleITK reads other voxels than the header describes.
    SHAPE                The volume does not have three dimensions of at least one voxel.
    SHAPE_4D             The file contains several volumes, and none or a wrong one was chosen.
    GRID_UNKNOWN         The header does not say how the grid is placed in the patient.
    GRID_QFORM_SFORM     The qform and the sform disagree.
    GRID_PIXDIM          A voxel length is not positive, or contradicts the sform.
    GRID_UNITS           The unit of length is not known.
    GRID_BROKEN          The affine is not that of a grid.
    SLICE_MISSING        A DICOM series lacks slices between others, or has them in another folder.
    SLICE_DOUBLED        A DICOM series has two slices at one position.
    SLICES_UNEVEN        Slices of a DICOM series are unequally spaced, or not in line.
    SLICES_MIXED         Files of a DICOM series differ in what slices of one volume share.
    GANTRY_TILT          Positions of slices leave their normal, and a sheared grid was not requested.
    SERIES_SEVERAL       A folder has several DICOM series, and none was chosen.
    SERIES_UNKNOWN       A folder does not have the chosen DICOM series.
    SHAPE_DIFFERS        Two volumes of a case have different shapes; check puts LABEL_ or CHANNEL_ in front.
    GRID_DIFFERS         Two volumes of a case are on different grids; check puts LABEL_ or CHANNEL_ in front.
    LABEL_GRID_NEAR      A label is less than half a voxel away from its image's grid, which is accepted.
    CHANNEL_GRID_NEAR    The same of two channels.
    READ_NOTE            Something was assumed, chosen or filled while reading.
    IMAGE_MISSING        A case has no image.
    IMAGE_CONSTANT       Every voxel of an image has the same value.
    IMAGE_DUPLICATE      Two images have the same voxels.
    CHANNEL_CONSTANT     A channel has one value in every case, and is left out.
    CHANNEL_MISSING      A case lacks a channel that other cases have.
    CHANNEL_UNEXPECTED   A case has a channel that other cases do not have.
    LABEL_MISSING        A case has no label.
    LABEL_VALUES         A mask's values are not the labels they should be.
    LABEL_UNNAMED        A mask contains a value that no label has.
    LABELLED_UNKNOWN     A case names a drawn label that does not exist.
    LABELLED_OVERLAP     Only some labels of a case were drawn, and labels overlap.
    LABELLED_OTHERS      A mask has voxels of a label that its case does not name as drawn.
    STRUCTURE_MISSING    A case has no file of a requested structure.
    STRUCTURE_RARE       Less than half of the cases have a file of a structure, and the labels are not chosen.
    LABEL_ROUNDED        A mask's values were rounded to whole numbers.
    LABEL_VALUES_MANY    A mask without named labels has as many values as an image.
    IGNORE_UNSTATED      One value fills most masks, as that of unlabelled voxels does, and is not stated as such.
    MASKS_EXCHANGED      Masks fit the images of each other's cases better than their own.
    LABEL_EMPTY          A mask has no foreground voxel.
    LABEL_ABSENT         No case has a requested label.
    NO_FOREGROUND        No training case contains any foreground.
    LABEL_VALUE_ABSENT   No case has one of the values of a requested label.
    LABELS_OVERLAP       Voxels are in two structures, where masks are one file for each.
    LABELS_EMPTY         No case has a foreground voxel.
    LABELS_MISSING       No mask contains any label.
    LABELS_DIFFER        Records of masks name other labels than each other, or than are requested.
    MASKS_MISSING        No predictions or no references were given.
    CASES_UNKNOWN        A requested case does not exist.
    CASES_UNMATCHED      Predictions and references, or two tables, have no case in common.
    DATASET_UNREADABLE   The folder or table cannot be read as a data set.
    DATASET_LAYOUT       The folder has none of the layouts of a data set.
    DATASET_JSON         An entry of dataset.json is wrong.
    DATASET_CONTRADICTED An entry of dataset.json contradicts the files.
    CASES_INCOMPLETE     Cases lack an image, a channel or a label.
    FOLDER_EMPTY         A folder contains no volume.
    FILE_UNUSED          A volume beside others is neither an image nor a structure.
    FILE_NAMED_TWICE     Two entries name the same file.
    TABLE_BROKEN         A line of a table is wrong.
    TABLE_COLUMNS        A table's columns are not those that are needed.
    TABLE_EMPTY          A table or a list of cases contains nothing.
    TEXT_NOT_UTF8        A text file is not UTF-8.
    PATH_INVALID         A path in a data set is not valid.
    PATH_OUTSIDE         A path leads out of the data set's folder.
    ID_INVALID           A case's id cannot name a file.
    ID_DUPLICATE         Two cases or two files have the same id.
    ID_LOOKS_ALIKE       Two ids differ only in their Unicode characters.
    GROUP_INVALID        A case has no group, or two.
    GROUPS_ALONE         A grouping was given, and each case is a group of its own.
    PATIENTS_UNSTATED    Cases seem to be of one patient, by ids or a column, and nothing says whether they are.
    GROUPS_FEW           There are too few groups (patients) to split.
    FOLDS_DIFFER         The folds in a folder are of different trainings.
    FOLD_INVALID         A case has no fold while others have one, a group is in two folds, or a fold lacks a label.
    SPLITS_INVALID       A prescribed split contradicts the cases, their patients or itself.
    SPLITS_UNREAD        There is a file or a column of splits that is not read.
    SETTING_INVALID      A setting or option has a value that is not allowed.
    OPTIONS_TOGETHER     Options of which only one may be given are given together.
    SETTING_UNKNOWN      There is no such setting or table.
    NOT_TOML             The settings file is not TOML.
    TRANSFORM_RANDOM     One of the user's transforms is random.
    TRANSFORMS_FAILED    The user's transforms fail on a case, or cannot be undone for its mask.
    TRANSFORMS_MISSING   The run needs transforms that only a script can pass.
    MODEL_UNREADABLE     The model cannot be loaded, or does not fit its input.
    MODEL_FORMAT         Another version of medfcn wrote the model.
    MASK_DIFFERS         A mask that is made again has other bytes than its record says.
    WEIGHTS_UNKNOWN      The weights are those of no known encoder.
    WEIGHTS_KEYS         Weights lack a tensor, or have one too many.
    WEIGHTS_MISFIT       The weights do not fit the network.
    WEIGHTS_TYPE         A tensor of the weights is not floating point.
    WEIGHTS_NOT_FINITE   Weights contain NaN or infinity.
    OUTPUT_EXISTS        The output exists, and overwriting was not requested.
    OUTPUT_NOT_OURS      The output folder contains files of something else.
    OUTPUT_LINK          A link in the output folder leads elsewhere.
    DISK_FULL            The disk, the quota or the largest size of a file leaves no room for an output.
    WRITE_FAILED         The system does not let an output be written.
    RUN_LOCKED           Another process works in the run folder.
    RUN_STOPPED          The run folder contains a stopped training.
    RUN_DIFFERS          The run folder contains another training than the requested one.
    NOT_STOPPED          The run folder contains no stopped training to resume.
    CHECKPOINT_BROKEN    The checkpoint of a stopped training cannot be read.
    SLICES_LOST          Prepared slices of a training are not there any more.
    SLICES_DAMAGED       Prepared slices of a training contain values that cannot be.
    LOSS_NOT_FINITE      The loss or the gradient of a training is NaN or infinite.
    OUT_OF_MEMORY        The machine or the GPU has too little memory.
    LIBRARY_MISSING      An optional library is not installed.
    STUDY_BROKEN         The study of a search cannot be read or written.
    TRAINING_FAILED      The training cannot go on.
    TRAINING_STOPPED     The training stopped because a signal or the caller requested it.
    CLUSTER_FAILED       A cluster's scheduler is gone, or its workers cannot do the work.
    SHARDS_DIFFER        An output folder is shared by another number of shards.
    ENGINE_DIFFERS       An output folder was begun with another engine or precision than the requested one.
    ENGINE_UNFIT         This machine cannot run networks with the engine or the precision.
    SHARDS_MISSING       Some shards of an output folder have not ended, or have not seen all cases.
    PROCESS_FAILED       One of several training processes failed or vanished.
    FAILED               Any other error.

Example:
    >>> try:
    ...     raise GeometryMismatchError("case_017: label shape (3, 3, 2) differs from image shape (3, 3, 3)")
    ... except ValueError as error:
    ...     print(error, error.code)
    case_017: label shape (3, 3, 2) differs from image shape (3, 3, 3) GRID_DIFFERS
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Self

from medfcn.text import for_library, one_line, shown

_COMMANDS: list[str] = []
"""The command that is running in this process, if one is."""


@contextmanager
def as_command(name: str) -> Iterator[None]:
    """Let errors keep both forms of what to do, of which the command shows its own; a script sees that of a call.

    Args:
        name: Of the command.

    Example:
        >>> error = OutputExistsError("masks: already exists; replace it (--overwrite, overwrite=True)")
        >>> print(error)
        masks: already exists; replace it (overwrite=True)
    """
    _COMMANDS.append(name)
    try:
        yield
    finally:
        _COMMANDS.pop()


def command_name() -> str:
    """The command that is running in this process; empty in a script."""
    return _COMMANDS[-1] if _COMMANDS else ""


def for_reader(text: str) -> str:
    """A message in the form of whoever reads it: as it is in a command, with the arguments of a call in a script.

    Example:
        >>> for_reader("give --labels")
        'give labels='
    """
    return text if _COMMANDS else for_library(text)


class MedfcnError(Exception):
    """Anything a user can fix: bad input, bad settings, an output in the way.

    Args:
        message: What is wrong and what to do. It becomes one line that is safe to print.
        code: The kind of problem, such as `FILE_CUT_OFF`; without one, that of the class.
        field: The header field, setting, column or key that it is about.

    Attributes:
        code: See above; programs look for it, so it stays when the words change.
        field: See above; empty where it is about no single field.
    """

    default_code: ClassVar[str] = "FAILED"

    def __init__(self, message: str, *, code: str = "", field: str = "") -> None:
        super().__init__(one_line(message))
        self.code = code or self.default_code
        self.field = field

    def __str__(self) -> str:
        return for_reader(str(self.args[0]))


class VolumeError(MedfcnError, ValueError):
    """A file that cannot be trusted to be the volume it claims to be."""

    default_code = "VOLUME_REFUSED"


class GeometryError(VolumeError):
    """A volume's transforms are absent, broken or contradict each other."""

    default_code = "GRID_BROKEN"


class LabelError(VolumeError):
    """A mask whose voxels are not the labels they should be."""

    default_code = "LABEL_VALUES"


class GeometryMismatchError(MedfcnError, ValueError):
    """Two grids that must be the same one are not."""

    default_code = "GRID_DIFFERS"


class DatasetError(MedfcnError, ValueError):
    """A folder, table or `dataset.json` that cannot be read as a data set."""

    default_code = "DATASET_UNREADABLE"


class SettingsError(MedfcnError, ValueError):
    """A setting that does not exist, or a value it cannot have."""

    default_code = "SETTING_INVALID"

    @classmethod
    def of(cls, setting: str, problem: str, *, code: str = "") -> Self:
        """The error of one setting by its full name, which is also its `field`.

        Example:
            >>> print(SettingsError.of("network.fusion", "'add' needs score maps; set network.scores = true"))
            setting network.fusion: 'add' needs score maps; set network.scores = true
        """
        return cls(f"setting {setting}: {problem}", code=code, field=setting)


class ModelError(MedfcnError, ValueError):
    """Weights or a run folder's model that cannot be loaded, or do not fit what they are for."""

    default_code = "MODEL_UNREADABLE"


class MissingFileError(MedfcnError, FileNotFoundError):
    """A file or folder that is not there."""

    default_code = "FILE_MISSING"


class OutputExistsError(MedfcnError, FileExistsError):
    """The output exists, and overwriting was not requested."""

    default_code = "OUTPUT_EXISTS"


class WriteError(MedfcnError, OSError):
    """An output that cannot be written: the disk is full, or the system does not allow it."""

    default_code = "WRITE_FAILED"


class MemoryShortError(MedfcnError, MemoryError):
    """Too little memory for a case, or for a step of a training; see `medfcn.memory_errors`."""

    default_code = "OUT_OF_MEMORY"


class TrainingError(MedfcnError, RuntimeError):
    """Training that cannot go on."""

    default_code = "TRAINING_FAILED"


class TrainingStoppedError(TrainingError):
    """Training that stopped because a signal or its caller requested it.

    Args:
        message: Where it stands and how to go on.
        signal_number: The number of the signal.
    """

    default_code = "TRAINING_STOPPED"

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class ProcessError(TrainingError):
    """Training in several processes, of which one failed or vanished.

    Args:
        message: Which one, and why.
        is_told: True if another process reports why, so that this one need not.
    """

    default_code = "PROCESS_FAILED"

    def __init__(self, message: str, *, is_told: bool = False) -> None:
        super().__init__(message)
        self.is_told = is_told


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put a name, such as a file's, in front of the message of any error of medfcn that is raised inside.

    A message that begins with the name stays as it is.

    Example:
        >>> with naming("case_1.nii"):
        ...     raise VolumeError("dim[1] is 0; re-export the file", code="SHAPE")
        Traceback (most recent call last):
            ...
        medfcn.errors.VolumeError: case_1.nii: dim[1] is 0; re-export the file
    """
    try:
        yield
    except MedfcnError as error:
        if not str(error).startswith(one_line(f"{name}: ")):
            error.args = (one_line(f"{name}: {error}"),)
        raise


@contextmanager
def needing(library: str, what: str, extra: str, error: type[MedfcnError] = MissingFileError) -> Iterator[None]:
    """Turn the failed import of an optional library into one line that says how to install it.

    Args:
        library: Its name.
        what: What needs it.
        extra: The extra of medfcn that installs it.
        error: The class of the error.

    Example:
        >>> with needing("nothing", "a search", "tune"):
        ...     import nothing_of_this_name
        Traceback (most recent call last):
            ...
        medfcn.errors.MissingFileError: a search needs nothing, which is not installed; pip install 'medfcn[tune]'
    """
    try:
        yield
    except ImportError as missing:
        remedy = f"pip install 'medfcn[{extra}]'"
        raise error(f"{what} needs {library}, which is not installed; {remedy}", code="LIBRARY_MISSING") from missing


def not_a_file(mode: int, remedy: str) -> str:
    """The kind of what is there instead of a regular file, and what to do, for a message.

    Args:
        mode: From `stat`.
        remedy: What to do; a pipe has one of its own.

    Example:
        >>> not_a_file(Path("/").stat().st_mode, "give a text file")
        'a folder, not a file; give a text file'
    """
    if stat.S_ISFIFO(mode):  # such as <(…) of a shell; it could be read only once, and waits for its writer
        return "a pipe (FIFO), not a file; write what comes out of it to a file, and give that"
    kind = "a folder" if stat.S_ISDIR(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"
    return f"{kind}, not a file; {remedy}"


def refuse_pipe(path: Path, error: type[MedfcnError]) -> None:
    """Refuse a pipe in words of its own, where the name of what is there decides what it is.

    Raises:
        MedfcnError: As `error`: it is a pipe.
    """
    if path.is_fifo():
        raise error(f"{shown(path)}: {not_a_file(path.stat().st_mode, '')}", code="FILE_NOT_REGULAR")

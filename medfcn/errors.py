"""What medfcn raises when something is wrong.

Every error that a user can cause is one of these, and its text is one line: the file or case, the field,
what was found, what was expected, and what to do about it.

    MedfcnError
    ├── VolumeError             (ValueError)         a file that cannot be trusted to be the volume it claims
    │   ├── GeometryError                            its transforms are absent, broken or contradict each other
    │   └── LabelError                               its voxels are not the labels they should be
    ├── GeometryMismatchError   (ValueError)         two grids that must be one are not
    ├── DatasetError            (ValueError)         a folder or table whose cases cannot be told
    ├── SettingsError           (ValueError)         a setting that does not exist or cannot be
    ├── ModelError              (ValueError)         weights or a run folder that cannot be loaded or do not fit
    ├── MissingFileError        (FileNotFoundError)  a file or folder that is not there
    ├── OutputExistsError       (FileExistsError)    something would be overwritten
    └── TrainingError           (RuntimeError)       training that cannot go on
        ├── TrainingStoppedError                     training that was asked to stop, and did
        └── ProcessError                             training in several processes that one of them ended

Example:
    >>> try:
    ...     raise GeometryMismatchError("case_017: label shape (3, 3, 2) differs from image shape (3, 3, 3)")
    ... except ValueError as error:
    ...     print(error)
    case_017: label shape (3, 3, 2) differs from image shape (3, 3, 3)
"""


class MedfcnError(Exception):
    """Anything a user can mend: bad input, bad settings, an output in the way."""


class VolumeError(MedfcnError, ValueError):
    """A file that cannot be trusted to be the volume it claims to be."""


class GeometryError(VolumeError):
    """A volume's transforms are absent, broken or contradict each other."""


class LabelError(VolumeError):
    """A mask whose voxels are not the labels they should be."""


class GeometryMismatchError(MedfcnError, ValueError):
    """Two grids that must be the same one are not."""


class DatasetError(MedfcnError, ValueError):
    """A folder, table or `dataset.json` whose cases cannot be told."""


class SettingsError(MedfcnError, ValueError):
    """A setting that does not exist, or a value it cannot have."""


class ModelError(MedfcnError, ValueError):
    """Weights or a run folder's model that cannot be loaded, or do not fit what they are for."""


class MissingFileError(MedfcnError, FileNotFoundError):
    """A file or folder that is not there."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class OutputExistsError(MedfcnError, FileExistsError):
    """An output is in the way, and overwriting it was not asked for."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class TrainingError(MedfcnError, RuntimeError):
    """Training that cannot go on."""


class TrainingStoppedError(TrainingError):
    """Training that was asked to stop, by a signal or by its caller, and did.

    Args:
        message: Where it stands and how to go on.
        signal_number: Of the signal.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class ProcessError(TrainingError):
    """Training in several processes that one of them ended, or that lost one.

    Args:
        message: Which one, and why.
        is_told: Whether another process says why, so that this one need not.
    """

    def __init__(self, message: str, *, is_told: bool = False) -> None:
        super().__init__(message)
        self.is_told = is_told

"""Options of reading a volume. Each accepts a file that is refused without it."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from medfcn.decoding import convert
from medfcn.errors import MedfcnError, SettingsError
from medfcn.files import plain_json
from medfcn.text import did_you_mean

TransformChoice = Literal["auto", "sform", "qform"]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How a volume is read.

    Example:
        >>> ReadOptions(xform="qform").xform
        'qform'
        >>> ReadOptions(volume_index=-1)
        Traceback (most recent call last):
        medfcn.errors.SettingsError: volume_index -1 is negative; volumes of a 4D file are numbered from 0
    """

    xform: TransformChoice = "auto"
    """Which transform to use when qform, sform and pixdim disagree; "auto" refuses such a file.

    "sform" takes the sform as it is, whatever pixdim says, and keeps its shear (a gantry tilt)."""
    assume_grid: bool = False
    """Accept a file that does not say how its grid is placed, such as NIfTI with both transform codes 0.

    Assumed in every format: i runs to the left, j to the back, k to the head, spacing as stated, origin 0.
    """
    nonfinite: float | None = None
    """Value that replaces NaN and infinite voxels; None refuses such a file."""
    volume_index: int | None = None
    """Which volume of a 4D file to read, from 0; None refuses a 4D file.

    In a DICOM series, which of its time points, echoes or acquisitions."""
    series: str | None = None
    """Which series of a folder of DICOM files to read: its SeriesInstanceUID, or the short hash that a message about
    the folder gives; None refuses a folder with several."""
    bids: str | None = None
    """Which files of a BIDS data set to take, such as `suffix=T1w,desc=manual`; None takes the one kind there is."""
    around_mm: tuple[float, float, float] | None = None
    """The place, in RAS+ millimetres, around which a prediction looks at a box of its training volumes' size."""
    box_mm: tuple[tuple[float, float], ...] | None = None
    """The box that a prediction looks at: both ends along R, A and S in RAS+ millimetres; None looks at all."""
    max_bytes: int = 2 << 30
    """Refuse a file with more bytes than this when uncompressed; 2 GiB are 512 x 512 x 1000 float64 voxels."""

    def recorded(self) -> dict[str, object]:
        """The options as they are written down beside a mask; some only where they were chosen."""
        values = asdict(self)
        del values["bids"]  # says which files are read, not how
        for name in ("series", "around_mm", "box_mm"):
            if values[name] is None:
                del values[name]
            elif name != "series":
                values[name] = plain_json(values[name])  # as it is read back
        return values

    @classmethod
    def of_record(cls, recorded: Mapping[str, Any], *, source: str, error: type[MedfcnError], remedy: str) -> Self:
        """The options of `recorded`; other keys are refused, because they may decide what is read.

        Args:
            recorded: Values of JSON.
            source: The file, for messages.
            error: The class to raise.
            remedy: What to do, for messages.

        Raises:
            MedfcnError: As `error`: there is another key, or a value that an option cannot have.
        """
        names = [item.name for item in fields(cls)]
        for name in recorded:
            if name not in names:
                raise error(f"{source}: reading: unknown option {name!r}{did_you_mean(name, names)}; {remedy}")
        return convert(dict(recorded), cls, source=source, error=error, remedy=remedy)

    def __post_init__(self) -> None:
        if self.xform not in ("auto", "sform", "qform"):
            raise SettingsError(f"xform {self.xform!r} is not known; choose auto, sform or qform", field="xform")
        if self.nonfinite is not None and not math.isfinite(self.nonfinite):
            message = f"nonfinite {self.nonfinite} is not finite; give a number, such as --nonfinite fill:0"
            raise SettingsError(message, field="nonfinite")
        if self.volume_index is not None and self.volume_index < 0:
            message = f"volume_index {self.volume_index} is negative; volumes of a 4D file are numbered from 0"
            raise SettingsError(message, field="volume_index")
        self._require_sound_part()
        if self.max_bytes <= 0:
            raise SettingsError(
                f"max_bytes {self.max_bytes} is not positive; give a number of bytes", field="max_bytes"
            )

    def _require_sound_part(self) -> None:
        """SettingsError for a place or a box that cannot be, or both."""
        if self.around_mm is not None and self.box_mm is not None:
            raise SettingsError(
                "around and box are given together; give one of them", code="OPTIONS_TOGETHER", field="box"
            )
        around, box = self.around_mm, self.box_mm
        if around is not None and (len(around) != 3 or not all(map(math.isfinite, around))):
            raise SettingsError(f"around {around} is not three numbers; give X,Y,Z in millimetres", field="around")
        if box is not None and not (len(box) == 3 and all(-math.inf < low < high < math.inf for low, high in box)):
            raise SettingsError(
                f"box {box} is not three rising pairs; give X0,X1,Y0,Y1,Z0,Z1 in millimetres", field="box"
            )


DEFAULT_OPTIONS = ReadOptions()

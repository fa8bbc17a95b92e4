"""The library and the arithmetic that run networks: chosen once for an output folder, and stated in it.

Masks of another library or precision differ in some voxels. So whoever works in a folder, now or later, here or on
another machine, takes what is stated there.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import msgspec

from medfcn.byte_range import ByteRange
from medfcn.decoding import convert, read_json
from medfcn.errors import MedfcnError, OutputExistsError, SettingsError
from medfcn.files import json_bytes, write_bytes
from medfcn.labels.sidecar import ENGINE, PRECISION, MaskRecord
from medfcn.runs.folder import ENGINE_FILE
from medfcn.runs.write_once import write_once
from medfcn.settings import EngineName, Precision
from medfcn.text import did_you_mean, listed

AUTO = "auto"
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_REMEDY = "remove it and go on with --resume"  # the records of the masks state it too


@dataclass(frozen=True)
class Arithmetic:
    """How networks are run.

    Attributes:
        engine: The library.
        precision: Its arithmetic.
        folded: Batch normalisation is folded into the convolutions before it. Only torch in float32 knows both ways:
            other libraries always do so in their own way.
    """

    engine: EngineName = "torch"
    precision: Precision = "float32"
    folded: bool = False

    @property
    def can_be_folded(self) -> bool:
        """True if there are both ways."""
        return self.engine == "torch" and self.precision == "float32"

    def __str__(self) -> str:
        """In words.

        Example:
            >>> print(Arithmetic("openvino"), Arithmetic(folded=True), Arithmetic(), sep=" | ")
            openvino in float32 | torch in float32 with folded batch norm | torch in float32
        """
        return f"{self.engine} in {self.precision}{' with folded batch norm' if self.folded else ''}"

    @classmethod
    def of_record(cls, record: MaskRecord, *, source: str) -> "Arithmetic":
        """The arithmetic of a recorded mask.

        Raises:
            SettingsError: This version does not know it.
        """
        stated = {"engine": record.engine or ENGINE, "precision": record.precision or PRECISION}
        return _arithmetic_in(stated | {"folded": bool(record.folded)}, source)


def _arithmetic_in(stated: dict[str, Any], source: str) -> Arithmetic:
    remedy = "use the medfcn that wrote it"
    return convert(stated, Arithmetic, source=source, error=SettingsError, remedy=remedy)


@dataclass(frozen=True)
class Wanted:
    """The requested arithmetic; None for what nobody requested.

    Attributes:
        engine: `torch`, `onnx`, `openvino` or `auto`.
        precision: `float32`, `bfloat16` or `auto`.
        fold_norm: Fold batch normalisation into the convolutions before it.

    Raises:
        SettingsError: There is no such engine or precision.
    """

    engine: str | None = None
    precision: str | None = None
    fold_norm: bool | None = None

    def __post_init__(self) -> None:
        for field, known in (("engine", ENGINES), ("precision", PRECISIONS)):
            value, names = getattr(self, field), (*known, AUTO)
            if value is not None and value not in names:
                hint = did_you_mean(str(value), names)
                raise SettingsError(f"{field} {value!r}: not one of {listed(names)}{hint}", field=field)

    def device(self, name: str) -> str:
        """The device to load models on: the CPU, if an engine is requested that knows no other.

        Example:
            >>> Wanted("onnx").device("auto"), Wanted("auto").device("auto"), Wanted("onnx").device("cuda")
            ('cpu', 'auto', 'cuda')
        """
        return "cpu" if name == AUTO and self.engine not in (None, AUTO, ENGINE) else name

    def refuse_other(self, stated: Arithmetic, where: object) -> None:
        """Refuse another arithmetic than one that is stated.

        Args:
            stated: The arithmetic.
            where: The folder or file that states it, for the message.

        Raises:
            OutputExistsError: Another one is requested. `auto` is never another one.
        """
        for field, wanted, has in (
            ("engine", self.engine, stated.engine),
            ("precision", self.precision, stated.precision),
            ("fold_norm", self.fold_norm, stated.folded if stated.can_be_folded else None),
        ):
            if None in (wanted, has) or wanted in (AUTO, has):
                continue
            option = field.replace("_", "-")
            raise OutputExistsError(
                f"{where}: is of {stated}, and {field} {wanted} is requested; leave --{option} out to go on as it "
                "began, or choose another output",
                code="ENGINE_DIFFERS",
                field=field,
            )


class _Stated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file of an output folder."""

    engine: EngineName
    precision: Precision
    folded: bool

    @property
    def arithmetic(self) -> Arithmetic:
        return Arithmetic(self.engine, self.precision, self.folded)


class StatedArithmetic:
    """The file of an output folder that states how its networks are run.

    Args:
        output: The output folder, or the file of its only mask; it need not exist.
    """

    def __init__(self, output: Path, *, is_one_file: bool = False) -> None:
        self._output, self._is_one_file = output, is_one_file
        self._path = output / ENGINE_FILE

    def read(self) -> Arithmetic | None:
        """The stated arithmetic; without the file, that of a mask which is there; None if there is neither.

        Raises:
            SettingsError: It cannot be read, or is one that this version does not know.
        """
        if self._is_one_file:
            record = MaskRecord.beside(self._output)
            return None if record is None else Arithmetic.of_record(record, source=str(self._output))
        if self._path.is_file():
            found = ByteRange.of(self._path, error=SettingsError, remedy=_REMEDY)
            whole = replace(found, name=str(self._path))  # many folders have a file of this name
            return read_json(whole, _Stated, error=SettingsError, remedy=_REMEDY).arithmetic
        for path in sorted(self._output.glob("*.json")) if self._output.is_dir() else ():
            record = None
            with suppress(MedfcnError):  # that of a broken record is found out elsewhere
                record = MaskRecord.beside(path.with_suffix(".nii.gz"))
            if record is not None and record.mask_sha256:
                return Arithmetic.of_record(record, source=str(path))
        return None

    def state(self, chosen: Arithmetic, *, anew: bool) -> Arithmetic:
        """State what was chosen, unless another process has stated something.

        Args:
            chosen: The arithmetic.
            anew: Replace what is there.

        Returns:
            The arithmetic that holds: what another process stated, if it was the first.
        """
        if self._is_one_file:
            return chosen
        content = json_bytes(msgspec.to_builtins(_Stated(chosen.engine, chosen.precision, chosen.folded)))
        if anew:
            write_bytes(self._path, content)
        else:
            write_once(self._path, content)
        return self.read() or chosen

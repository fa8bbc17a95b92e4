"""Shards: the parts of one folder's cases that processes on several machines work on, and what each leaves behind.

File systems that several machines share often have no locks that can be trusted. So a case belongs to a shard by its
id alone, each shard writes files of its own, each by one rename, and nobody waits for anybody. The shard that finds
the tables of all others writes those of the folder; if several do, they write the same bytes.
"""

import csv
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medfcn.decoding import read_json
from medfcn.errors import DatasetError, OutputExistsError, SettingsError
from medfcn.files import (
    csv_text,
    json_bytes,
    make_inner_folder,
    remove_half_written,
    write_csv,
    write_error,
)
from medfcn.runs.folder import PARTS_FOLDER, SHARDS_FILE
from medfcn.runs.write_once import write_once
from medfcn.text import counted, listed

MOST_SHARDS = 10_000
"""The largest number of parts."""


@dataclass(frozen=True)
class Shard:
    """One of several parts of the cases.

    Attributes:
        number: Its number, from 1.
        count: The number of parts.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """A shard as it is requested.

        Raises:
            SettingsError: It is not `i/N` with 1 ≤ i ≤ N.

        Example:
            >>> Shard.parse("2/4")
            Shard(number=2, count=4)
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST_SHARDS:
            raise SettingsError(
                f"shard {text}: expected i/N with i from 1 to N and N at most {MOST_SHARDS}, such as 1/4",
                field="shard",
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, case: str) -> bool:
        """True if a case is in this shard: by a hash of its id, which is the same on every machine.

        Example:
            >>> [number for number in (1, 2, 3) if Shard(number, 3).has("case_017")]
            [3]
        """
        return int(key_of(case), 16) % self.count == self.number - 1


def key_of(case: str) -> str:
    """Sixteen hexadecimal digits that stand for a case's id in a table, whatever characters the id has."""
    return hashlib.sha256(os.fsencode(case)).hexdigest()[:16]


class PartRow(NamedTuple):
    """The end of one case of a shard.

    Attributes:
        case: The case's id.
        key: That of `key_of`.
        outcome: How it ended, in one word.
        error: The error in one line, of a case that failed.
    """

    case: str
    key: str
    outcome: str
    error: str


class Parts:
    """The folder in an output in which each shard leaves its table.

    Args:
        output: The output folder; it need not exist.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._folder = output / PARTS_FOLDER
        self._count_file = self._folder / SHARDS_FILE

    @property
    def count(self) -> int | None:
        """The number of shards that share the output; None if there are none.

        Raises:
            DatasetError: The file that states it cannot be read.
        """
        if not self._count_file.is_file():
            return None
        remedy = f"remove {PARTS_FOLDER}, and run all shards again with --resume"
        found = read_json(self._count_file, dict[str, int], error=DatasetError, remedy=remedy)
        return found.get("shards")

    def refuse_others(self, shard: Shard) -> None:
        """Refuse to share an output with another number of shards.

        Raises:
            OutputExistsError: There are others.
        """
        count = self.count
        if count is not None and count != shard.count:
            raise OutputExistsError(
                f"{self._output}: is shared by {counted(count, 'shard')}, not {shard.count}; give --shard "
                f"{min(shard.number, count)}/{count}, or choose another output",
                code="SHARDS_DIFFER",
                field="shard",
            )

    def enter(self, shard: Shard) -> None:
        """State the number of shards, unless another shard has. Of two that begin at once, one is the first.

        Raises:
            OutputExistsError: There is another number of shards.
        """
        make_inner_folder(self._folder)
        remove_half_written(self._folder, SHARDS_FILE, self.path(shard).name, self.timing_path(shard).name)
        write_once(self._count_file, json_bytes({"shards": shard.count}))
        self.refuse_others(shard)

    def path(self, shard: Shard) -> Path:
        """The table of a shard."""
        return self._folder / f"{shard.number}-of-{shard.count}.csv"

    def timing_path(self, shard: Shard) -> Path:
        """The seconds of a shard's cases."""
        return self._folder / f"timing-{shard.number}-of-{shard.count}.csv"

    def shards(self) -> list[Shard]:
        """All shards that share the output, in order."""
        count = self.count or 0
        return [Shard(number, count) for number in range(1, count + 1)]

    def missing(self) -> list[Shard]:
        """The shards that have left no table yet."""
        return [shard for shard in self.shards() if not self.path(shard).is_file()]

    def write(self, shard: Shard, rows: Sequence[tuple[str, str, str]]) -> None:
        """Write the table of a shard that has ended.

        Args:
            shard: The shard.
            rows: Id, outcome and error of each of its cases.
        """
        table = [PartRow(case, key_of(case), outcome, error) for case, outcome, error in rows]
        write_csv(self.path(shard), PartRow._fields, table)

    def read(self) -> Mapping[str, PartRow]:
        """The rows of all shards, by key.

        Raises:
            DatasetError: A shard has left no table, or one that cannot be read.
        """
        if not self.shards():
            raise DatasetError(
                f"{self._output}: no shard has worked here; begin with --shard 1/N",
                code="SHARDS_MISSING",
                field="finish",
            )
        if missing := self.missing():
            raise DatasetError(
                f"{self._output}: {counted(len(missing), 'shard')} not finished: {listed(map(str, missing))}; run "
                "each again with --shard and --resume",
                code="SHARDS_MISSING",
                field="finish",
            )
        return {row.key: row for shard in self.shards() for row in self._rows(shard)}

    def _rows(self, shard: Shard) -> list[PartRow]:
        path = self.path(shard)
        try:
            with path.open(newline="", encoding="utf-8") as file:
                header, *rows = csv.reader(file)
            if tuple(header) != PartRow._fields:
                raise ValueError(header)
            return [PartRow(*map(csv_text, row)) for row in rows]
        except (ValueError, TypeError, csv.Error) as error:
            raise DatasetError(
                f"{path}: is no table of a shard; run it again with --shard {shard} and --resume",
                code="SHARDS_MISSING",
            ) from error
        except OSError as error:
            raise write_error(error, path) from error

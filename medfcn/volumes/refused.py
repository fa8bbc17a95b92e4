"""A file that cannot be used, in the place of one: whoever reads it gets the reason."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from medfcn.errors import MedfcnError


@dataclass(frozen=True)
class RefusedFile(os.PathLike[str]):
    """A file that was refused when its folder was listed, such as one of two of the same name.

    Args:
        path: The file.
        error: The reason.
    """

    path: Path
    error: MedfcnError

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def refuse(self) -> NoReturn:
        """Raise the reason anew: an error that was raised once may have got a name in front.

        Raises:
            MedfcnError: Always.
        """
        raise type(self.error)(str(self.error), code=self.error.code, field=self.error.field) from self.error

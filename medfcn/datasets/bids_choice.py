"""The choice of files of a BIDS data set: by what a user says, else by rule."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from medfcn.datasets.bids_files import ENTITIES, GRID, BidsFile
from medfcn.errors import DatasetError, SettingsError
from medfcn.text import did_you_mean, listed, shown

_KEYS = ("suffix", "datatype", "derivatives", *ENTITIES)
_OF_LABEL = "label."
_STATED = (*GRID, "desc", "echo", "flip", "inv", "mt", "part", "datatype")
"""Images that differ in one of these are pictures of other kinds: of which kind they are has to be said."""


@dataclass(frozen=True)
class BidsChoice:
    """Files of a BIDS data set.

    Attributes:
        suffixes: Of the images; several are channels, in this order.
        values: Allowed values by entity (or `datatype`): of images where an image has the entity, else of labels.
        of_labels: The same of labels alone, or their `suffix`.
        derivatives: Name or path of the derivative with the labels.
    """

    suffixes: tuple[str, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    of_labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    derivatives: str = ""

    @classmethod
    def parse(cls, text: str | None) -> "BidsChoice":
        """Read `KEY=VALUE,…`.

        Raises:
            SettingsError: A key is unknown, or a part has another form.

        Example:
            >>> choice = BidsChoice.parse("suffix=T1w+FLAIR,ses=1,label.desc=manual")
            >>> choice.suffixes, choice.values, choice.of_labels
            (('T1w', 'FLAIR'), {'ses': ('1',)}, {'desc': ('manual',)})
        """
        values: dict[str, tuple[str, ...]] = {}
        of_labels: dict[str, tuple[str, ...]] = {}
        for part in (text or "").split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not part.strip() and text is not None and not text.strip():
                raise SettingsError("bids: nothing is given; write for example suffix=T1w,desc=manual", field="bids")
            if not part.strip():
                continue
            if not equals or not value:
                raise SettingsError(
                    f"bids: {part.strip()!r} is not KEY=VALUE; write for example suffix=T1w,desc=manual", field="bids"
                )
            name = key.removeprefix(_OF_LABEL)
            if name not in _KEYS or (name != key and name == "derivatives"):
                raise SettingsError(f"bids: no key is named {key!r}{did_you_mean(key, _KEYS)}", field="bids")
            given = (value,) if name == "derivatives" else tuple(value.split("+"))
            if twice := [one for one, count in Counter(given).items() if count > 1]:
                raise SettingsError(f"bids: {key} names {twice[0]!r} more than once; name it once", field="bids")
            (of_labels if name != key else values)[name] = given
        suffixes = values.pop("suffix", ())
        derivatives = values.pop("derivatives", ("",))[0]
        return cls(suffixes, values, of_labels, derivatives)

    def images(self, files: Sequence[BidsFile], root: str) -> tuple[BidsFile, ...]:
        """The images that are meant.

        Args:
            files: All images.
            root: The data set, for messages.

        Raises:
            DatasetError: There are several kinds of images, and none is chosen; or none of the chosen kind.
        """
        counts = Counter(file.suffix for file in files)
        wanted = self.suffixes or tuple(counts)
        if len(counts) > 1 and not self.suffixes:
            raise _several(root, f"images with several suffixes, {_counted(counts)}", f"suffix={next(iter(counts))}")
        if absent := [suffix for suffix in wanted if suffix not in counts]:
            found = f"no image has the suffix {absent[0]}; there are {_counted(counts) or 'no images'}"
            raise DatasetError(f"{root}: {found}", code="CASES_UNKNOWN", field="bids")
        kept = _with(self._of_images(files), [file for file in files if file.suffix in wanted], root)
        for key in _STATED:
            values = Counter(file.value(key) for file in kept)
            if len(values) > 1 and key not in self.values:
                kinds = ", ".join(f"{key}-{value} ({count})" for value, count in sorted(values.items()))
                raise _several(root, f"images that differ in {key}, {kinds}", f"{key}={min(values)}")
        return tuple(kept)

    def require_images_only(self, images: Sequence[BidsFile], root: str) -> None:
        """Refuse a value that no image has, where there are no labels that it could be about.

        Raises:
            SettingsError: There is such a value.
        """
        for key in self.values.keys() - self._of_images(images).keys():
            raise SettingsError(
                f"bids: no image of {root} has the entity {key}; leave it out, or write label.{key}=… where it is "
                "about labels",
                field="bids",
            )

    def labels(self, labels: Sequence[BidsFile], images: Sequence[BidsFile], root: str) -> tuple[BidsFile, ...]:
        """The labels that are meant: all of one kind.

        Args:
            labels: All labels.
            images: All images.
            root: The data set, for messages.

        Raises:
            DatasetError: There are several kinds of labels, and none is chosen; or none of the chosen kind.
        """
        values = {key: value for key, value in self.values.items() if key not in self._of_images(images)}
        kept = _with({**values, **self.of_labels}, labels, root) if labels else []
        grids = {tuple(image.value(key) for key in GRID) for image in images}
        on_grid = [label for label in kept if tuple(label.value(key) for key in GRID) in grids]
        kept = on_grid or kept
        kinds = Counter(_kind_of(label) for label in kept)
        if len(kinds) > 1:
            named = [f"{kind} ({count})" for kind, count in sorted(kinds.items())]
            raise _several(root, f"labels of several kinds, {listed(named)}", _telling(kept))
        return tuple(kept)

    def _of_images(self, images: Iterable[BidsFile]) -> dict[str, tuple[str, ...]]:
        """The values that are about images: the others are about labels."""
        stated = {key for image in images for key in (*image.entities, "datatype")}
        return {key: value for key, value in self.values.items() if key in stated}


def _with(values: Mapping[str, tuple[str, ...]], files: Sequence[BidsFile], root: str) -> list[BidsFile]:
    """The files with some values.

    Raises:
        DatasetError: No file has one of them.
    """
    kept = list(files)
    for key, wanted in values.items():
        known = Counter(file.value(key) for file in kept)
        kept = [file for file in kept if file.value(key) in wanted]
        if not kept:
            found = f"no file has {key}={'+'.join(wanted)}; of {key} there are {_counted(known)}"
            raise DatasetError(f"{root}: {found}; correct --bids", code="CASES_UNKNOWN", field="bids")
    return kept


def _several(root: str, found: str, example: str) -> DatasetError:
    return DatasetError(
        f"{root}: {found}; choose with --bids, such as --bids {example}", code="DATASET_LAYOUT", field="bids"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return listed(f"{name} ({count})" for name, count in sorted(counts.items()))


def _kind_of(label: BidsFile) -> str:
    """The entities and suffix that tell kinds of labels apart, in words; masks of several labels are one kind."""
    keys = [key for key in (*GRID, "atlas", "seg", "scale", "desc") if key in label.entities]
    name = "_".join([*(f"{key}-{label.entities[key]}" for key in keys), label.suffix])
    return f"{shown(label.source)}: {name}" if label.source else name


def _telling(labels: Sequence[BidsFile]) -> str:
    """A choice that tells some labels apart."""
    first = labels[0]
    if len({label.source for label in labels}) > 1:
        return f"derivatives={first.source or '.'}"
    for key in ("suffix", "desc", *GRID, "atlas", "seg", "scale"):
        if len({label.value(key) for label in labels}) > 1:
            return f"label.{key}={first.value(key)}"
    return "label.desc=…"

"""`medfcn demo` goes the whole way on the sample volumes."""

from pathlib import Path

import pytest

from medfcn.demo import demo, sample_data
from medfcn.errors import OutputExistsError


def test_a_short_demo_makes_masks_scores_and_a_picture(tmp_path: Path) -> None:
    made = demo(tmp_path / "demo", steps=25, device="cpu", threads=1)
    assert sorted(path.name for path in made.masks.glob("*.nii.gz")) == [f"sample_{n}.nii.gz" for n in range(13, 17)]
    assert (made.folder / "scores" / "scores.csv").is_file()
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    assert {row.case for row in made.scores.rows} == {f"sample_{n}" for n in range(13, 17)}
    assert {row.label for row in made.scores.rows} == {"organ"}
    with pytest.raises(OutputExistsError):
        demo(tmp_path / "demo", steps=25)


@pytest.mark.slow
def test_the_demo_scores_ninety_on_unseen_volumes(tmp_path: Path) -> None:
    made = demo(tmp_path / "demo", device="cpu")
    assert sum(row.dice for row in made.scores.rows) / len(made.scores.rows) >= 0.90


def test_the_sample_volumes_are_found_in_a_checkout() -> None:
    assert len(list((sample_data() / "train" / "images").glob("*.nii.gz"))) == 12

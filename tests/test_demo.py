"""`medfcn demo` goes the whole way on the sample volumes."""

from functools import partial
from pathlib import Path

import pytest

from medfcn.demo import demo, sample_data
from medfcn.errors import MissingFileError, OutputExistsError, TrainingStoppedError
from medfcn.runs.stop import Stop
from medfcn.verbs import train


def test_a_short_demo_makes_masks_scores_and_a_picture(tmp_path: Path) -> None:
    made = demo(tmp_path / "demo", steps=25, device="cpu", threads=1)
    assert sorted(path.name for path in made.masks.glob("*.nii.gz")) == [f"sample_{n}.nii.gz" for n in range(13, 17)]
    assert (made.folder / "scores" / "scores.csv").is_file()
    assert made.picture.read_bytes().startswith(b"\x89PNG")
    assert {row.case for row in made.scores.rows} == {f"sample_{n}" for n in range(13, 17)}
    assert {row.label for row in made.scores.rows} == {"organ"}
    with pytest.raises(OutputExistsError):
        demo(tmp_path / "demo", steps=25)


def test_a_stopped_demo_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFileError, match="contains no stopped training"):
        demo(tmp_path / "demo", resume=True)
    assert not (tmp_path / "demo").exists()
    whole = demo(tmp_path / "whole", steps=6, device="cpu", threads=1)
    stop = Stop()
    stop.ask()
    with monkeypatch.context() as stopped:
        stopped.setattr("medfcn.demo.train", partial(train, stop=stop))
        with pytest.raises(TrainingStoppedError, match="go on with the same call and resume=True"):
            demo(tmp_path / "demo", steps=6, device="cpu", threads=1)
    for _ in range(2):  # once from the training, once from a demo that is whole
        made = demo(tmp_path / "demo", steps=6, device="cpu", threads=1, resume=True)
        assert (made.run / "model.safetensors").read_bytes() == (whole.run / "model.safetensors").read_bytes()
        assert [row.dice for row in made.scores.rows] == [row.dice for row in whole.scores.rows]


@pytest.mark.slow
def test_the_demo_scores_ninety_on_unseen_volumes(tmp_path: Path) -> None:
    made = demo(tmp_path / "demo", device="cpu")
    assert sum(row.dice for row in made.scores.rows) / len(made.scores.rows) >= 0.90


def test_the_sample_volumes_are_found_in_a_checkout() -> None:
    assert len(list((sample_data() / "train" / "images").glob("*.nii.gz"))) == 12

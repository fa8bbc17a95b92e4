"""What tests share: toy data sets made on the spot, a network trained on one, and the real volumes where they are."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

# A shared machine may take a second for what usually takes a millisecond.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tests run side by side; more threads than cores make each of them slower."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real labelled volumes, kept beside the project and never in it."""
    if not SHARED.is_dir():
        pytest.skip("the real volumes are not beside the project (../shared/data)")
    return SHARED


def draw_ball(number: int, shape: tuple[int, int, int] = (26, 22, 12)) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A bright ball in noise, with another place and size for every number; and its mask."""
    random = np.random.default_rng(number)
    centre = np.array(shape) / 2 + random.uniform(-2, 2, 3)
    radius = random.uniform(4.5, 6.0)
    grid = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"), -1)
    mask = (np.linalg.norm((grid - centre) * [1, 1, 1.2], axis=-1) < radius).astype(np.uint8)
    image = 100 + 80 * mask + random.normal(0, 15, shape)
    return image.astype(np.int16), mask


def write_case(folder: Path, case_id: str, image: NDArray[np.int16], mask: NDArray[np.uint8]) -> None:
    """Lay a case into `folder/images` and `folder/labels`, LPS with 1 × 1 × 1.5 mm voxels."""
    import nibabel

    affine = np.diag([-1.0, -1.0, 1.5, 1.0])
    for kind, array in (("images", image), ("labels", mask)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(array, affine), folder / kind / f"{case_id}.nii.gz")


@pytest.fixture(scope="session")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight cases of a bright ball; never written to by a test."""
    folder = tmp_path_factory.mktemp("balls")
    for number in range(8):
        write_case(folder, f"ball_{number}", *draw_ball(number))
    return folder


@pytest.fixture(scope="session")
def ball_run(balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder trained on six of the balls; `ball_6` and `ball_7` are unseen."""
    import medfcn

    folder = tmp_path_factory.mktemp("run") / "run"
    medfcn.train(balls, folder, labels="ball=1", leave_out=["ball_6", "ball_7"], steps=60, device="cpu", threads=1)
    return folder

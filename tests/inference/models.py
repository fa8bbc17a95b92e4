"""Small untrained models, and volumes to put masks on; made by hand, so that no test waits for a training."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from medfcn.config import override
from medfcn.inference.card import Card
from medfcn.inference.held_out import UnseenLabel
from medfcn.inference.model import Model
from medfcn.labels import LabelMap
from medfcn.networks.design import Design
from medfcn.networks.fcn import build_network
from medfcn.settings import Settings
from medfcn.slices.plan import Intensity, Plan


def tiny_plan(**changed: Any) -> Plan:
    """A plan for 12 × 12 windows of 1.5 mm pixels, axial."""
    fields: dict[str, Any] = {
        "views": ("axial",),
        "spacing_mm": (1.5, 1.5, None),
        "window": (12, 12),
        "context": 1,
        "widths": (4, 6),
        "intensities": (Intensity("zscore"),),
        "batch_size": 2,
        "mirror_axes": (0, 1),
        "reasons": {"views": "made by hand"},
    }
    return Plan(**(fields | changed))


def tiny_model(
    *,
    labels: str = "organ=1",
    seed: int = 0,
    one_part: tuple[int, ...] = (),
    together: bool = False,
    view_weights: tuple[float, ...] = (),
    prediction: Any = None,
    head: str = "auto",
    **plan: Any,
) -> Model:
    """A model with random weights whose masks hold a good part of every label."""
    how, names = tiny_plan(**plan), LabelMap.parse(labels)
    chosen = override(
        override(Settings(), "network", score_channels=5, head=head), "prediction", **(prediction or {})
    )
    random = torch.random.get_rng_state()
    torch.manual_seed(seed)
    network = build_network(
        Design.of(
            chosen.network,
            widths=how.widths,
            channels_in=how.channels_in,
            label_count=len(names.entries),
            overlapping=names.overlapping,
        )
    ).eval()
    torch.random.set_rng_state(random)
    network.head.weight.data.mul_(20)
    with torch.inference_mode():  # so that half of the pixels lie on either side
        logits = network(torch.randn(8, how.channels_in, 24, 24, generator=torch.Generator().manual_seed(1)))
        centre = logits.movedim(1, 0).flatten(1).median(dim=1).values
    network.head.bias.data.sub_(centre)
    card = Card(
        labels=names,
        channels=tuple(f"channel_{number}" for number in range(len(how.intensities))),
        plan=how,
        settings=chosen,
        one_part=one_part,
        together=together,
        view_weights=view_weights,
        weights_sha256="",
        versions={"medfcn": "test"},
    )
    return Model(network, card, device=torch.device("cpu"))


def looking_model(**plan: Any) -> Model:
    """A model whose further looks, at more than the borders that do not count, change its masks."""
    looks: dict[str, Any] = {"window": (20, 20), "crop": (16, 14), "turns": (20.0, -20.0), "context": 3}
    return tiny_model(labels="left=1,right=7", **(looks | plan))


def unseen_label(
    scores: tuple[tuple[float, float], ...] = (),
    absent_share: float = 0.0,
    log_ml: tuple[float, float] | None = None,
    one_part: tuple[tuple[float, float], ...] = (),
) -> UnseenLabel:
    """Numbers of a label, of which a test needs some."""
    return UnseenLabel(scores, absent_share, log_ml, one_part)


def saved(model: Model, folder: Path) -> Path:
    """The run folder of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    return folder


def blobs(shape: tuple[int, ...] = (20, 17, 6), *, seed: int = 0) -> NDArray[np.int16]:
    """Smooth int16 noise."""
    from scipy.ndimage import gaussian_filter

    noise = np.random.default_rng(seed).normal(size=shape)
    return (3000 * gaussian_filter(noise, 1.2)).astype(np.int16)


def write_image(path: Path, array: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    """A plain file for an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = np.diag([-1.0, -1.0, 2.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, place), path)
    return path

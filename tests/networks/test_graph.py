"""Networks as ONNX graphs: the same logits at every size."""

from typing import Any

import numpy as np
import pytest
import torch

from medfcn.errors import MemoryShortError, ModelError
from medfcn.networks.fcn import pad_to_multiple
from medfcn.networks.graph import INPUT, exporting, onnx_graph, stride_of
from medfcn.networks.network import SliceNetwork
from tests.networks.designs import ALL, build, lived_in

onnxruntime = pytest.importorskip("onnxruntime")


JOINED = {"labels": 20, "stem_stride": 2, "restoring": "joined"}


@pytest.mark.parametrize(("preset", "parts"), [*((name, {}) for name in ALL), ("auto", JOINED)])
def test_a_graph_gives_the_logits_of_the_network_at_every_size(preset: str, parts: dict[str, Any]) -> None:
    network = lived_in(build(preset, **parts)).eval()
    session = onnxruntime.InferenceSession(onnx_graph(network, 1, (64, 64)))
    for number, (height, width) in enumerate([(64, 64), (33, 100)], start=1):
        slices = torch.randn(number, 1, height, width, generator=torch.Generator().manual_seed(number))
        with torch.inference_mode():
            ours = network(slices).numpy()
        padded = pad_to_multiple(slices, stride_of(network)).numpy()
        theirs = session.run(None, {INPUT: padded})[0][..., :height, :width]
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


def test_a_network_that_cannot_be_exported_is_refused_in_one_line() -> None:
    class Strange(SliceNetwork):
        takes_any_size = False

        def forward(self, slices: torch.Tensor) -> torch.Tensor:
            raise ValueError("not\ntoday")

    with pytest.raises(ModelError, match="cannot export the network as ONNX: not"):
        onnx_graph(Strange(), 1, (8, 8))


def test_too_little_memory_is_not_called_a_network_that_cannot_be_exported() -> None:
    with pytest.raises(MemoryShortError), exporting("the network", field="format"):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes")

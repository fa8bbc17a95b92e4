"""The steps of medfcn as MONAI transforms and as a MONAI `Inferer`."""

from medfcn.monai.inferer import SlidingVolumeInferer
from medfcn.monai.loading import LoadVolumed
from medfcn.monai.transforms import (
    EncodeLabelsd,
    NormaliseIntensityd,
    SliceVolumed,
    ToNetworkGridd,
    network_transforms,
)

__all__ = [
    "EncodeLabelsd",
    "LoadVolumed",
    "NormaliseIntensityd",
    "SliceVolumed",
    "SlidingVolumeInferer",
    "ToNetworkGridd",
    "network_transforms",
]

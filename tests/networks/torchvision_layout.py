"""Image classifiers with torchvision's key names and layers, written down here from the papers; filled at random."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

Classifier = TypeVar("Classifier", bound=nn.Module)

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and convolutions of each block."""
RESNETS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


class Vgg16(nn.Module):
    """`features`, then `classifier` on 7 × 7 maps: for images of 224 × 224 that is all of them."""

    def __init__(self, *, divisor: int = 1, batch_norm: bool = False, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, count in VGG16:
            for _ in range(count):
                layers.append(nn.Conv2d(before, width // divisor, 3, padding=1))
                layers += [nn.BatchNorm2d(width // divisor)] if batch_norm else []
                layers.append(nn.ReLU())
                before = width // divisor
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        wide = 4096 // divisor
        self.classifier = nn.Sequential(
            nn.Linear(before * 7 * 7, wide),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(wide, wide),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(wide, classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images).flatten(1))


class Block(nn.Module):
    """A basic block of two convolutions, or a bottleneck of three."""

    def __init__(self, before: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        after = width * 4 if bottleneck else width
        sizes = [1, 3, 1] if bottleneck else [3, 3]
        channels = [before, *[width] * (len(sizes) - 1), after]
        self.count = len(sizes)
        for index, size in enumerate(sizes):
            step = stride if size == 3 and index == len(sizes) - 2 else 1
            convolution = nn.Conv2d(channels[index], channels[index + 1], size, step, size // 2, bias=False)
            setattr(self, f"conv{index + 1}", convolution)
            setattr(self, f"bn{index + 1}", nn.BatchNorm2d(channels[index + 1]))
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        kept = given if self.downsample is None else self.downsample(given)
        for index in range(1, self.count + 1):
            given = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(given))
            if index < self.count:
                given = torch.relu(given)
        return torch.relu(given + kept)


class ResNet(nn.Module):
    """`conv1`, `bn1`, `layer1` to `layer4`, `fc` on the mean of the last map."""

    def __init__(self, depth: int, *, divisor: int = 1, classes: int = 10, blocks: Sequence[int] = ()) -> None:
        super().__init__()
        bottleneck = depth >= 50
        before = 64 // divisor
        self.conv1 = nn.Conv2d(3, before, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.pool = nn.MaxPool2d(3, 2, 1)
        for stage, count in enumerate(blocks or RESNETS[depth]):
            width = 64 * 2**stage // divisor
            layers = []
            for index in range(count):
                layers.append(Block(before, width, 2 if stage and not index else 1, bottleneck=bottleneck))
                before = width * 4 if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(before, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        given = self.pool(torch.relu(self.bn1(self.conv1(images))))
        for stage in range(1, 5):
            given = getattr(self, f"layer{stage}")(given)
        return given

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images).mean(dim=(2, 3)))


def filled(classifier: Classifier, *, seed: int = 0) -> Classifier:
    """With random weights that keep the size of what passes through, and statistics as after some training."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in classifier.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=random)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1, generator=random)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.2, generator=random)
                module.bias.normal_(0, 0.1, generator=random)
                module.running_mean.normal_(0, 0.1, generator=random)
                module.running_var.uniform_(0.7, 1.4, generator=random)
    return classifier.eval()

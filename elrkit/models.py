"""The networks: ResNet-18/34 with the CIFAR stem, and one small residual net for CPUs. All take normalized images.

Built from torchvision's blocks and with its initialization (He et al., 2016).
"""

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.models.resnet import BasicBlock, conv1x1


def resnet18(num_classes: int, in_channels: int = 3) -> nn.Module:
    """ResNet-18 for small images: (batch, in_channels, H, W) -> (batch, num_classes); 11.17 M parameters at 10."""
    return _cifar_stem(resnet.resnet18(num_classes=num_classes), in_channels)


def resnet34(num_classes: int, in_channels: int = 3) -> nn.Module:
    """ResNet-34 for small images, the network of the paper and of Liu et al.; 21.28 M parameters at 10 classes."""
    return _cifar_stem(resnet.resnet34(num_classes=num_classes), in_channels)


def _cifar_stem(model: resnet.ResNet, in_channels: int) -> resnet.ResNet:
    """Replace the 7x7 stride-2 stem and the max-pool, made for 224-pixel images, by a 3x3 stride-1 convolution."""
    model.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


class SmallResNet(nn.Module):
    """The network for CPUs: width 16, stride 1 for the 8x8 digits; width 32, stride 2 for CIFAR (0.31 M parameters).

    A stem and three basic blocks of width, 2 width and 4 width channels (ResNet-8), the last two with stride 2:
    (batch, in_channels, H, W) -> logits (batch, num_classes).
    """

    def __init__(self, num_classes: int, in_channels: int, width: int, stem_stride: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, width, kernel_size=3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.Sequential(
            BasicBlock(width, width),
            BasicBlock(width, 2 * width, stride=2, downsample=_shortcut(width, 2 * width)),
            BasicBlock(2 * width, 4 * width, stride=2, downsample=_shortcut(2 * width, 4 * width)),
        )
        self.head = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(images)).mean(dim=(2, 3)))


def _shortcut(channels: int, out_channels: int) -> nn.Module:
    return nn.Sequential(conv1x1(channels, out_channels, stride=2), nn.BatchNorm2d(out_channels))


def build(name: str, num_classes: int, in_channels: int, width: int | None, stem_stride: int | None) -> nn.Module:
    """The network that a RunConfig names, in channels-last layout; weights drawn from torch's default generator."""
    if name == "small_resnet":
        assert width is not None  # RunConfig fills both in
        assert stem_stride is not None
        model: nn.Module = SmallResNet(num_classes, in_channels, width, stem_stride)
    else:
        model = {"resnet18": resnet18, "resnet34": resnet34}[name](num_classes, in_channels)
    return model.to(memory_format=torch.channels_last)

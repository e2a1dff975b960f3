"""The networks: their sizes, what shapes they take and give, and their memory layout."""

import pytest
import torch
from torch import nn

from elrkit import models


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def test_resnets_have_the_published_sizes():
    assert parameters(models.resnet18(10)) == 11_173_962
    assert parameters(models.resnet34(10)) == 21_282_122
    assert parameters(models.resnet34(100)) == 21_328_292


def test_small_resnet_has_0_31_million_parameters_on_cifar():
    def conv(a, b, k):
        return a * b * k * k + 2 * b  # with its batch norm

    blocks = conv(32, 32, 3) * 2 + conv(32, 64, 3) + conv(64, 64, 3) + conv(64, 128, 3) + conv(128, 128, 3)
    shortcuts = conv(32, 64, 1) + conv(64, 128, 1)
    model = models.SmallResNet(10, in_channels=3, width=32, stem_stride=2)
    assert parameters(model) == conv(3, 32, 3) + blocks + shortcuts + 128 * 10 + 10
    assert round(parameters(model) / 1e6, 2) == 0.31


@pytest.mark.parametrize(
    ("name", "channels", "side", "classes", "width", "stride"),
    [
        ("small_resnet", 1, 8, 10, 16, 1),
        ("small_resnet", 3, 32, 100, 32, 2),
        ("small_resnet", 3, 5, 2, 8, 2),
        ("resnet18", 3, 32, 7, None, None),
        ("resnet18", 1, 8, 10, None, None),
    ],
)
def test_images_to_logits_in_channels_last(name, channels, side, classes, width, stride):
    model = models.build(name, classes, channels, width, stride).eval()
    filters = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in filters)
    images = torch.randn(3, side, side, channels).permute(0, 3, 1, 2)
    logits = model(images)
    assert logits.shape == (3, classes)
    torch.testing.assert_close(logits, model(images.contiguous()), atol=1e-4, rtol=1e-4)


def test_gradients_of_the_narrowest_small_net_are_float64_s():
    """oneDNN's convolutions, which some CPUs choose by the number of channels, beside torch's own."""
    torch.manual_seed(0)
    exact = models.build("small_resnet", 10, 3, 8, 1).double()
    model = models.build("small_resnet", 10, 3, 8, 1)
    model.load_state_dict(exact.state_dict())
    images = torch.randn(16, 3, 8, 8)
    for network, batch in ((exact, images.double()), (model, images)):
        network(batch.contiguous(memory_format=torch.channels_last)).square().mean().backward()
    for a, b in zip(model.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["small_resnet", "resnet18"])
def test_filters_are_drawn_as_he_et_al(name):
    """He et al., 2015: deviation sqrt(2 / fan out)."""
    for module in models.build(name, 10, 3, 32, 2).modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            expected = (2 / (module.out_channels * module.kernel_size[0] ** 2)) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=0.05)

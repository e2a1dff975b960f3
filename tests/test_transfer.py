"""Transfer from weights in a file: the features are the network's own, what does not fit is named in one line."""

import pytest
import torch
from torchvision.models import resnet

from elrkit.data import DataError
from elrkit.report import transfer


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return resnet.resnet18(num_classes=7).eval()


@pytest.fixture
def weights(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_features_are_what_the_whole_network_classifies(network, weights):
    images = torch.randint(0, 256, (5, 32, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    backbone = transfer.load_backbone(weights, "resnet18", num_classes=7)
    found = torch.from_numpy(transfer.features(backbone, images, side=48, batch=2))
    assert found.shape == (5, 512)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    normalized = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    scaled = torch.nn.functional.interpolate(normalized, size=(48, 48), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(network.fc(found), network(scaled), rtol=1e-4, atol=1e-4)


def test_backbone_is_frozen(weights):
    backbone = transfer.load_backbone(weights, "resnet18", num_classes=7)
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("code in the file was executed",))


def _broken(kind, network, path):
    state = network.state_dict()
    if kind == "shape":
        state["fc.weight"] = state["fc.weight"][:3]
    elif kind == "lacking":
        del state["layer1.0.conv1.weight"]
    elif kind == "more":
        state["extra"] = torch.zeros(1)
    elif kind == "whole":
        state = [1, 2]
    elif kind == "code":
        state = Payload()
    if kind == "text":
        path.write_text("no weights")
    elif kind != "absent":
        torch.save(state, path)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("shape", r"1 entries do not fit resnet18; fc\.weight is \(3, 512\), expected \(7, 512\)"),
        ("lacking", r"layer1\.0\.conv1\.weight is missing, expected \(64, 64, 3, 3\)"),
        ("more", r"extra is \(1,\), expected no such entry"),
        ("whole", "is missing, expected"),
        ("code", "not a state_dict of plain tensors"),
        ("text", "not a state_dict of plain tensors"),
        ("absent", "no such file; give the state_dict of torchvision's resnet18"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(network, tmp_path, kind, line):
    path = tmp_path / "weights.pth"
    _broken(kind, network, path)
    with pytest.raises(DataError, match=line) as caught:
        transfer.load_backbone(path, "resnet18", num_classes=7)
    assert "\n" not in str(caught.value)


def test_unknown_backbone_is_refused(weights):
    with pytest.raises(DataError, match="backbone='vgg': allowed are resnet18, resnet34, resnet50"):
        transfer.load_backbone(weights, "vgg")


def test_linear_head_follows_many_labels_rather_than_single_ones():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.randn(3, 10, generator=generator)
    truth = torch.arange(300) % 3
    points = (centres[truth] + torch.randn(300, 10, generator=generator)).numpy()
    given = truth.clone()
    given[:60] = (truth[:60] + 1) % 3
    predicted = transfer.linear_head(points[:200], given[:200].numpy(), points[200:])
    assert (predicted == truth[200:].numpy()).mean() > 0.97

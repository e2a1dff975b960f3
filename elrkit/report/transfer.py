"""Transfer learning from a torchvision backbone whose weights the user has: frozen features, a linear head.

    backbone = load_backbone("resnet50.pth")                         # a state_dict, as torchvision publishes it
    train, test = (features(backbone, images) for images in (dataset.train_images, dataset.test_images))
    predicted = linear_head(train, dataset.train_labels, test)

Nothing is downloaded, and the file is read without executing what it may hold.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torchvision.models import resnet

from elrkit.data import DataError, DeviceImages

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's weights expect these


def load_backbone(
    path: str | Path, name: Literal["resnet18", "resnet34", "resnet50"] = "resnet50", num_classes: int = 1000
) -> nn.Module:
    """The network `name` with the weights of a state_dict file, its last layer taken away; evaluation mode, frozen.

    num_classes: outputs of the network that the file was saved from. Raises DataError when there is no such file, when
    it holds more than tensors, or when its keys or shapes are not the network's.
    """
    builders = {"resnet18": resnet.resnet18, "resnet34": resnet.resnet34, "resnet50": resnet.resnet50}
    if name not in builders:
        raise DataError(f"backbone={name!r}: allowed are {', '.join(builders)}")
    model = builders[name](num_classes=num_classes)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; give the state_dict of torchvision's {name}") from None
    except Exception as error:  # torch raises many kinds for what it refuses or cannot parse
        raise DataError(f"{path}: not a state_dict of plain tensors ({str(error).splitlines()[0]})") from None
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = (
        {key: tuple(value.shape) if isinstance(value, Tensor) else None for key, value in weights.items()}
        if isinstance(weights, dict)
        else {}
    )
    if wrong := [key for key in wanted if found.get(key) != wanted[key]] + [key for key in found if key not in wanted]:
        key = wrong[0]
        raise DataError(
            f"{path}: {len(wrong)} entries do not fit {name}; {key} is {found.get(key, 'missing')}, "
            f"expected {wanted.get(key, 'no such entry')}"
        )
    model.load_state_dict(weights)
    model.fc = nn.Identity()
    return model.eval().requires_grad_(False)


@torch.no_grad()
def features(backbone: nn.Module, images: Tensor, side: int = 112, batch: int = 100) -> np.ndarray:
    """What the backbone makes of images (n, H, W, 3) uint8, scaled to `side` pixels: (n, d) float32."""
    source = DeviceImages(images, IMAGENET_MEAN, IMAGENET_STD, "cpu")
    parts = []
    for index in torch.arange(len(images)).split(batch):
        scaled = nn.functional.interpolate(source.batch(index), size=(side, side), mode="bilinear", antialias=True)
        parts.append(backbone(scaled))
    return torch.cat(parts).numpy()


def linear_head(train_features: np.ndarray, labels: np.ndarray, test_features: np.ndarray) -> np.ndarray:
    """Predictions (m,) of multinomial logistic regression on standardized features: labels (n,), features (n or m, d).

    Strongly regularized, so that it follows many labels rather than single ones.
    """
    head = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=500))
    return head.fit(train_features, labels).predict(test_features)

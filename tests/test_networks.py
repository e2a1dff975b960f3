"""Parameters and operations against counts by hand, and the parts of a network against its description."""

import pytest
import torch
from torch import nn

from elrkit import models, records
from elrkit.config import RunConfig
from elrkit.report import networks as flops


def test_small_net_against_a_hand_count():
    net = nn.Sequential(
        nn.Conv2d(3, 4, kernel_size=3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, kernel_size=2, stride=2, bias=False),
        nn.Flatten(),
        nn.Linear(8 * 3 * 2, 5),
    )
    parameters, operations, layers = flops.count(net, (3, 6, 4))
    # Multiply-adds: 6*4 pixels * 4 channels * 27 inputs; 3*2 * 8 * 16; 48 * 5. Two operations each.
    by_hand = [2 * 24 * 4 * 27, 0, 2 * 6 * 8 * 16, 2 * 48 * 5]
    assert layers["flops"].tolist() == by_hand
    assert operations == sum(by_hand)
    assert layers["parameters"].tolist() == [3 * 4 * 9 + 4, 8, 4 * 8 * 4, 48 * 5 + 5]
    assert parameters == 112 + 8 + 128 + 245
    assert layers["output"].tolist() == [(4, 6, 4), (4, 6, 4), (8, 3, 2), (5,)]
    assert layers["kind"].tolist() == ["Conv2d", "BatchNorm2d", "Conv2d", "Linear"]


def resnet34_by_hand(classes: int) -> tuple[int, int]:
    """Weights and multiply-adds of ResNet-34 with a 3x3 stride-1 stem at 32x32, from its table of layers alone."""
    weights, work = 3 * 64 * 9, 32 * 32 * 3 * 64 * 9
    norms, channels, side = 64, 64, 32
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            if block == 0 and width > 64:
                side //= 2
                weights += channels * width  # the 1x1 shortcut
                work += side * side * channels * width
                norms += width
            weights += 9 * width * (channels + width)
            work += side * side * 9 * width * (channels + width)
            norms += 2 * width
            channels = width
    return weights + 2 * norms + 512 * classes + classes, work + 512 * classes


def test_resnet34_against_its_table_of_layers():
    parameters, operations, _ = flops.count(models.resnet34(10), (3, 32, 32))
    assert (parameters, operations / 2) == resnet34_by_hand(10)
    assert round(operations / 2 / 1e9, 2) == 1.16  # G multiply-adds


def test_model_stays_as_it_is():
    net = models.SmallResNet(10, 3, 8, 1).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    flops.count(net, (3, 16, 16))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", [2, 2, 2, 2]), ("resnet34", [3, 4, 6, 3])])
def test_stages(name, blocks):
    groups = flops.stages(getattr(models, name)(63))
    assert [len(group) for group in groups] == blocks
    assert groups[1][0] == "layer2.0"


def test_picture_is_drawn_from_the_modules():
    small, large = flops.draw({"A": models.resnet18(63), "B": models.resnet34(10)}, (3, 32, 32)).axes
    texts = [text.get_text() for text in small.texts]
    assert texts[0] == "image   3×32×32"
    assert "mean over pixels, linear   63" in texts
    assert sum("512×4×4" in text for text in texts) == 2
    assert "3×3 /2 + 3×3, 1×1 shortcut   256×8×8" in texts
    assert {"stem", "part 1", "part 2", "part 3", "part 4", "head"} <= set(texts)  # the paper's six parts
    assert sum("256×8×8" in text.get_text() for text in large.texts) == 6
    assert [axes.get_title() for axes in (small, large)] == ["A", "B"]


def run_record(config: RunConfig, train: int, held_out: int, epochs: int) -> dict:
    """What a cost is counted from, of a run that finished `epochs` epochs on the digits."""
    return {
        "run_id": config.run_id,
        "status": "finished",
        "config": config.model_dump(mode="json"),
        "data": {"classes": 10, "train_images": train, "held_out_images": held_out, "test_images": 450},
        "curves": {"epoch": list(range(1, epochs + 1))} | ({"test_top1": [0.5] * epochs} if epochs else {}),
        "timing": {"seconds": 1800.0, "jobs": 2},
        "device": {"name": "a device"},
        "execution": {"threads": 1},
    }


def small_net_by_hand() -> int:
    """Multiply-adds of small_resnet, width 8, stride 1, on an 8x8 image of one channel, from its description."""
    work = 64 * 8 * 9  # stem
    work += 2 * 64 * 8 * 8 * 9  # a block at 8x8
    work += 16 * (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16)  # at 4x4, with its shortcut
    work += 4 * (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32)  # at 2x2
    return work + 32 * 10


def test_operations_of_runs_against_a_hand_count():
    forward = 2 * small_net_by_hand() / 1e15
    plain = RunConfig(width=8, epochs=7, eval_every=3)
    found = flops.of_runs(
        [
            run_record(plain, 100, 20, epochs=7),
            run_record(plain.with_(sam_rho=0.1), 100, 20, epochs=7),
            run_record(plain, 100, 20, epochs=5),  # diverged in its sixth
            run_record(plain, 100, 20, epochs=0),
            run_record(plain.with_(eval_every=7, test_every=3), 100, 20, epochs=7),
            run_record(plain.with_(dataset="shop.npz"), 100, 20, epochs=7),
        ]
    )
    training = [7 * 100 * 3, 7 * 100 * 6, 5 * 100 * 3, 0, 7 * 100 * 3]
    # Test and held-out images every epoch, or after 3, 6 and 7; the training images after 3 and 6, and after the last.
    evaluation = [7 * 470 + 3 * 100, 7 * 470 + 3 * 100, 5 * 470 + 100, 0, 3 * 470 + 100]
    assert found["training_pflop"].tolist()[:5] == pytest.approx([forward * n for n in training])
    assert found["evaluation_pflop"].tolist()[:5] == pytest.approx([forward * n for n in evaluation])
    assert found.iloc[5].isna().all()


def test_totals_against_a_hand_count():
    plain = RunConfig(width=8, epochs=2)
    made = [run_record(plain.with_(seed=seed), 100, 0, epochs=2) for seed in range(4)]
    table = records.table(made).join(flops.of_runs(made))
    whole = flops.totals(table, ["scale", "device"]).iloc[0]
    assert (whole["scale"], whole["device"], whole["runs"], whole["hours"]) == ("digits", "a device", 4, 2.0)
    assert whole["PFLOP"] == pytest.approx(4 * (2 * 300 + 2 * 550) * 2 * small_net_by_hand() / 1e15)
    assert whole["TFLOP/s"] == pytest.approx(1000 * whole["PFLOP"] / 7200)
    assert flops.totals(records.table([]).join(flops.of_runs([])), ["scale"]).empty

"""What a network costs: parameters and floating-point operations of one image, layer by layer; and its picture.

    >>> from elrkit import models
    >>> parameters, operations, layers = count(models.resnet34(num_classes=10), (3, 32, 32))
    >>> f"{parameters:,} parameters, {operations / 1e9:.2f} GFLOP"
    '21,282,122 parameters, 2.32 GFLOP'

A multiply-add counts as two operations, as on the data sheets of processors; papers that quote "1.16 GFLOPs" for this
network count multiply-adds. Only convolutions and matrix products are counted (torch's own `FlopCounterMode`): batch
norm, activations, additions and pooling are under one percent. A training step costs about three forward passes, two
for the gradients with respect to inputs and weights; a step with SAM costs two such steps.
"""

import copy
from collections.abc import Iterable
from functools import lru_cache
from math import log2, nan

import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count(model: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int, pd.DataFrame]:
    """Parameters, operations of one forward pass of one image of `image_shape` (channels, height, width), and a table.

    The table has one row per layer without layers of its own that holds parameters, in the order of execution:
    layer (its name in the model), kind, output (channels, height, width or features), parameters, flops.

    Works on a copy without storage: `model` and its batch-norm statistics stay as they are, and nothing is computed.
    """
    ghost = copy.deepcopy(model).to("meta").eval()
    layers = []

    def note(name: str):
        def hook(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            layers.append((name, module, tuple(output.shape[1:])))

        return hook

    for name, module in ghost.named_modules():
        if not list(module.children()) and list(module.parameters()):
            module.register_forward_hook(note(name))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ghost(torch.empty(1, *image_shape, device="meta"))
    # The counter names a module by its class and its path: ResNet.layer1.0.conv1.
    flops = {name.partition(".")[2]: sum(by.values()) for name, by in counter.get_flop_counts().items() if "." in name}
    rows = [
        {
            "layer": name,
            "kind": type(module).__name__,
            "output": shape,
            "parameters": sum(p.numel() for p in module.parameters()),
            "flops": flops.get(name, 0),
        }
        for name, module, shape in layers
    ]
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops(), pd.DataFrame(rows)


IMAGE_SHAPES = {"digits": (1, 8, 8), "cifar10": (3, 32, 32), "cifar100": (3, 32, 32)}


@lru_cache
def _forward(model: str, classes: int, shape: tuple[int, int, int], width: int | None, stem_stride: int | None) -> int:
    from elrkit import models  # not before: torchvision takes seconds

    return count(models.build(model, classes, shape[0], width, stem_stride), shape)[1]


def of_runs(records: Iterable[dict]) -> pd.DataFrame:
    """The operations of each run in the order of the records, in PFLOP, counted over the epochs that it finished.

    Columns: training_pflop (three forward passes an image, six with SAM) and evaluation_pflop (one for each test and
    held-out image every `test_every` epochs, and one for each training image every `eval_every` epochs and at the end).
    NaN for files and folders of a record so old that it does not hold their image size.
    """
    rows = []
    for record in records:
        config, data = record["config"], record["data"]
        shape = tuple(data.get("image_shape") or IMAGE_SHAPES.get(config["dataset"], ()))
        network = (config["model"], data["classes"], shape, config["width"], config["stem_stride"])
        forward = _forward(*network) / 1e15 if shape else nan
        epochs = len(record["curves"].get("epoch", ()))
        passes = (6 if config["sam_rho"] else 3) * epochs * data["train_images"]
        done = epochs == config["epochs"]
        looks, tests = (
            epochs // every + (done and epochs % every > 0)
            for every in (config["eval_every"], config.get("test_every", 1))
        )
        tested = data["test_images"]
        seen = tests * (tested + data["held_out_images"]) + looks * data["train_images"]
        rows.append((forward * passes, forward * seen))
    return pd.DataFrame(rows, columns=["training_pflop", "evaluation_pflop"])


def totals(runs: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """What groups of runs cost in all: `runs` is `elrkit.records.table` with the columns of `of_runs` beside it.

    Columns: by, runs, PFLOP, hours (of runs, side by side or not), TFLOP/s (of one run).
    """
    pflop = runs["training_pflop"] + runs["evaluation_pflop"]
    columns = {"PFLOP": pflop, "hours": runs["seconds"] / 3600}
    groups = runs.assign(**columns).astype(dict.fromkeys(columns, float)).groupby(by, dropna=False)
    summed = groups[list(columns)].agg(lambda values: values.sum(skipna=False))
    summed.insert(0, "runs", groups.size())
    summed.insert(3, "TFLOP/s", 1000 * summed["PFLOP"] / (3600 * summed["hours"]))
    return summed.reset_index()


def stages(model: nn.Module) -> list[list[str]]:
    """The names of the residual blocks, grouped where width or resolution changes: [["layer1.0", "layer1.1"], ...].

    A residual block is a module whose class is named ...Block, or Bottleneck.
    """
    groups: list[list[str]] = []
    width = None
    for name, block in model.named_modules():
        if not type(block).__name__.endswith(("Block", "Bottleneck")):
            continue
        outputs = [module.out_channels for module in block.modules() if isinstance(module, nn.Conv2d)][-1]
        if outputs != width:
            groups.append([])
            width = outputs
        groups[-1].append(name)
    return groups


def draw(models: dict[str, nn.Module], image_shape: tuple[int, int, int]) -> Figure:
    """Networks side by side, from the image at the bottom to the classes at the top, read from the modules themselves.

    models  title -> network with residual blocks as `stages` finds them; each a column of boxes, one per block, as wide
            as the logarithm of its channels and coloured by its resolution
    """
    columns = {title: _parts(model, image_shape) for title, model in models.items()}
    tallest = max(map(len, columns.values()))
    figure = Figure(figsize=(4.6 * len(columns), 0.42 * tallest + 0.9), layout="constrained")
    for axes, (title, parts) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns.items(), strict=True):
        _draw_column(axes, title, parts, tallest)
    return figure


# Okabe and Ito's colours, on all of which dark text is legible; one for each resolution, finest first.
COLOURS = ("#56B4E9", "#009E73", "#F0E442", "#E69F00", "#CC79A7")


def _parts(model: nn.Module, image_shape: tuple[int, int, int]) -> list[tuple[str, str, tuple[int, ...]]]:
    """(part of the network, text, output shape) of each box, from the image on."""
    _, _, layers = count(model, image_shape)
    output = dict(zip(layers["layer"], layers["output"], strict=True))
    convolutions = [name for name in output if isinstance(model.get_submodule(name), nn.Conv2d)]
    parts = [("", "image", tuple(image_shape)), ("stem", _size(model, convolutions[0]), output[convolutions[0]])]
    for number, group in enumerate(stages(model), start=1):
        for block in group:
            within = [name for name in convolutions if name.startswith(block + ".")]
            main = [name for name in within if "downsample" not in name]
            text = " + ".join(_size(model, name) for name in main) + (", 1×1 shortcut" if main != within else "")
            parts.append((f"part {number}", text, output[main[-1]]))
    head = layers.iloc[-1]
    return [*parts, ("head", f"mean over pixels, {head['kind'].lower()}", head["output"])]


def _size(model: nn.Module, layer: str) -> str:
    """A convolution's kernel and, unless 1, its stride: 3×3, or 3×3 /2."""
    convolution = model.get_submodule(layer)
    high, wide = convolution.kernel_size
    return f"{high}×{wide}" + (f" /{convolution.stride[0]}" if convolution.stride[0] > 1 else "")


def _draw_column(axes: Axes, title: str, parts: list[tuple[str, str, tuple[int, ...]]], tallest: int) -> None:
    finest = parts[0][2][1]
    line = {"color": "#333333", "lw": 0.9}
    for level, (part, text, shape) in enumerate(parts):
        convolved = part not in ("", "head")
        wide = 0.95 + 0.08 * (log2(shape[0]) - 6) if convolved else 0.95
        colour = COLOURS[min(int(log2(finest / shape[1])), len(COLOURS) - 1)] if convolved else "#DDDDDD"
        box = FancyBboxPatch(
            (-wide, level - 0.3), 2 * wide, 0.6, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, ec="#333333"
        )
        axes.add_patch(box)
        axes.text(0, level, f"{text}   {'×'.join(map(str, shape))}", ha="center", va="center", size=8.5)
        if level:
            axes.plot([0, 0], [level - 0.7, level - 0.3], zorder=0, **line)
        if part.startswith("part"):  # the identity or shortcut around a residual block
            ends = (wide, level - 0.42), (wide, level + 0.42)
            bow = {"connectionstyle": "arc3,rad=0.6", "arrowstyle": "-|>", "mutation_scale": 7}
            axes.add_patch(FancyArrowPatch(*ends, **bow, **line))
    for part in dict.fromkeys(part for part, _, _ in parts if part):
        levels = [level for level, entry in enumerate(parts) if entry[0] == part]
        axes.plot([-1.35, -1.35], [levels[0] - 0.3, levels[-1] + 0.3], **line)
        axes.text(-1.42, sum(levels) / len(levels), part, ha="right", va="center", size=8.5)
    axes.set(xlim=(-1.85, 1.5), ylim=(-0.6, tallest - 0.4), title=title)
    axes.set_axis_off()

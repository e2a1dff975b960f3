# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The networks
#
# **In short:** the paper's counts of blocks and layers are right. The runs at *CPU scale* are of a third, much smaller net.
#
# The paper {cite}`galatolo2021` trains ResNet-34 {cite}`he2016` on images of 32 by 32 pixels and draws its smaller
# sibling, ResNet-18 with 63 outputs, one per subcategory of the shop. Here both are drawn and counted from the modules
# that the report trains, and the counts are held against the paper's description.

# %% tags=["parameters"]
num_classes = 63
image_size = 32

# %%
# %matplotlib inline
import pandas as pd
from elrkit import config, models
from elrkit.report import networks as flops
from elrkit.report import plans
from torch import nn

config.require("num_classes", num_classes, 2, whole=True)
config.require("image_size", image_size, 8, whole=True)
image_shape = (3, image_size, image_size)
networks = {
    "ResNet-18": models.resnet18(num_classes),
    "ResNet-34": models.resnet34(num_classes),
}

# %% [markdown]
# ## Figure 1, redrawn
#
# "Six parts: an input layer, four residual blocks and an output layer." What the paper calls a residual block is a
# *stage* to {cite:t}`he2016`: a chain of blocks of equal width, each of which adds the output $F(x)$ of two
# convolutions to its own input,
#
# $$ y = \operatorname{ReLU}\bigl(F(x) + W_s x\bigr), $$
#
# where $W_s$ is the identity, except where a part halves the resolution and doubles the channels; there it is a 1×1
# convolution with stride 2.

# %% mystnb={"figure": {"name": "fig-networks", "caption": "The two networks, drawn from their modules, image at the bottom. A box is a residual block: its convolutions, then channels × height × width of its output. Colour is the resolution; arrows are the shortcuts."}, "image": {"alt": "Two columns of boxes. ResNet-18 has a stem, four parts of two residual blocks each with 64, 128, 256 and 512 channels at 32, 16, 8 and 4 pixels, and a head with 63 outputs. ResNet-34 is the same with 3, 4, 6 and 3 blocks.", "width": "100%"}}
flops.draw(
    {f"{name}, {num_classes} classes": net for name, net in networks.items()},
    image_shape,
)

# %% [markdown]
# The blocks per part, counted in the modules; the paper gives two in each part of ResNet-18, and 3, 4, 6 and 3 in
# ResNet-34. "18" and "34" count the layers with weights on the main path: stem, two convolutions a block, head.

# %%
blocks = {
    name: [len(part) for part in flops.stages(net)]
    for name, net in networks.items()
}
pd.DataFrame(
    {
        "blocks per part": {
            name: ", ".join(map(str, counts)) for name, counts in blocks.items()
        },
        "parts with stem and head": {
            name: len(counts) + 2 for name, counts in blocks.items()
        },
        "layers with weights": {
            name: 1 + 2 * sum(counts) + 1 for name, counts in blocks.items()
        },
    }
)

# %% [markdown]
# ## What they cost
#
# A multiply-add is two operations. Convolutions and the linear layer are counted, by torch's own counter; a
# convolution of $k \times k$ from $C$ to $C'$ channels with an output of $H \times W$ costs $2\,k^2 C C' H W$.

# %%
counted = {name: flops.count(net, image_shape) for name, net in networks.items()}
cost = pd.DataFrame(
    {
        "parameters (million)": {
            name: parameters / 1e6 for name, (parameters, _, _) in counted.items()
        },
        "forward, one image (GFLOP)": {
            name: work / 1e9 for name, (_, work, _) in counted.items()
        },
        "training step, one image (GFLOP)": {
            name: 3 * work / 1e9 for name, (_, work, _) in counted.items()
        },
    }
)
cost.round(2)

# %% [markdown]
# A training step needs about three times the forward pass: the gradients with respect to the inputs and to the weights
# of each layer cost a forward pass each. A step with sharpness-aware minimization costs two such steps.
#
# Where the parameters and the operations are:

# %%
_, _, layers = counted["ResNet-34"]
part = {
    name: f"part {i}"
    for i, group in enumerate(flops.stages(networks["ResNet-34"]), 1)
    for name in group
}
owner = layers["layer"].str.split(".").str[:2].str.join(".").map(part)
owner = owner.fillna(layers["kind"].map({"Linear": "head"})).fillna("stem")
totals = layers.groupby(owner)[["parameters", "flops"]].sum()
(100 * totals / totals.sum()).round(1).add_suffix(" (%)").rename_axis("ResNet-34")

# %% [markdown]
# A block costs nearly the same in every part: half the pixels in each direction and twice the channels
# cancel. The parameters do not cancel, so most of them sit in the last parts.

# %% [markdown]
# (small-net)=
# ## The small net
#
# A run of ResNet-34 takes a GPU. What this report calls *CPU scale* trains a small residual net in its place, which halves the
# image's sides in its stem already:

# %% mystnb={"image": {"alt": "One column of boxes: a stem with stride 2, three residual blocks with 32, 64 and 128 channels at 16, 8 and 4 pixels, and a head with 10 outputs.", "width": "55%"}}
recipe = plans.at_cpu_scale(config.cifar10_recipe())
small = models.build(recipe.model, 10, 3, recipe.width, recipe.stem_stride)
flops.draw({"the small net, 10 classes": small}, image_shape)

# %%
parameters, forward, _ = flops.count(small, image_shape)
large = flops.count(models.resnet34(10), image_shape)
print(
    f"{parameters:,} parameters and {forward / 1e9:.3f} GFLOP for one image forward: 1/{large[0] / parameters:.0f} of "
    f"ResNet-34's parameters, 1/{large[1] / forward:.0f} of its operations"
)

# %% [markdown]
# ## Where the published code differs
#
# Its convolutions carry biases, the 1×1 shortcuts too. Batch normalization follows each of them and subtracts the mean
# of its channel, so a bias changes nothing that the network computes in training; it only adds parameters:

# %%
biases = {
    name: sum(
        module.out_channels
        for module in net.modules()
        if isinstance(module, nn.Conv2d)
    )
    for name, net in networks.items()
}
pd.DataFrame({"biases that batch norm cancels": biases}).assign(
    **{
        "share of the parameters (%)": [
            100 * biases[name] / counted[name][0] for name in biases
        ]
    }
).round(3)

# %% [markdown]
# It also numbers the shop's categories from 1 to 63, which takes 64 outputs; the first is never a label. Neither can
# explain a difference in accuracy.

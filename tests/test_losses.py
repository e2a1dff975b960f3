"""The losses against numpy written apart, finite differences, and the gradient worked out by hand.

The regularizer's gradient (Liu et al., NeurIPS 2020, Lemma 2), for one image: with R = log(1 - sum_k p_k t_k) and
dp_k / dz_c = p_k ([k = c] - p_c),

    dR / dz_c = -1 / (1 - <p, t>) sum_k t_k p_k ([k = c] - p_c) = p_c / (1 - <p, t>) sum_k (t_k - t_c) p_k,

where t is a constant: no gradient flows through the moving average. Where t_c is the largest, the sum is negative, so
descent raises that logit: the network is held to what it said early, whatever the label.
"""

import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elrkit import losses
from elrkit.config import RunConfig
from elrkit.losses import ELRLoss

N, BATCH, CLASSES = 12, 5, 4
INDEX = torch.tensor([7, 0, 11, 3, 4])
LABELS = torch.tensor([0, 3, 1, 1, 2])


def numpy_softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def numpy_cross_entropy(z, labels):
    return float(np.mean([-math.log(row[y]) for row, y in zip(numpy_softmax(z), labels, strict=True)]))


class NumpyELR:
    """The published formula in float64, one image at a time."""

    def __init__(self, n, classes, beta, lam):
        self.t, self.beta, self.lam = np.zeros((n, classes)), beta, lam

    def update(self, index, z):
        for i, p in zip(index, np.clip(numpy_softmax(z), 1e-4, 1 - 1e-4), strict=True):
            self.t[i] = self.beta * self.t[i] + (1 - self.beta) * p / p.sum()

    def loss(self, z, labels, index):
        p = np.clip(numpy_softmax(z), 1e-4, 1 - 1e-4)
        terms = [math.log(1 - sum(p[b, k] * self.t[i, k] for k in range(z.shape[1]))) for b, i in enumerate(index)]
        return numpy_cross_entropy(z, labels) + self.lam * sum(terms) / len(terms)


def logits(seed=0, scale=2.0):
    return scale * torch.randn(BATCH, CLASSES, generator=torch.Generator().manual_seed(seed))


def moved(beta=0.7, lam=3.0, steps=3, top_k=None):
    elr = ELRLoss(N, CLASSES, beta, lam, top_k)
    for step in range(steps):
        elr.update(INDEX, logits(100 + step))
    return elr


@settings(max_examples=50, deadline=None)
@given(
    beta=st.floats(0, 0.999),
    lam=st.floats(0, 20),
    scale=st.sampled_from([0.1, 1.0, 4.0, 30.0]),
    seed=st.integers(0, 2**31),
)
def test_elr_is_the_published_formula_over_several_updates(beta, lam, scale, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = ELRLoss(N, CLASSES, beta, lam), NumpyELR(N, CLASSES, beta, lam)
    for _ in range(4):
        index = rng.permutation(N)[:BATCH]
        z = rng.normal(0, scale, (BATCH, CLASSES)).astype(np.float32)
        labels = rng.integers(0, CLASSES, BATCH)
        ours.update(torch.from_numpy(index), torch.from_numpy(z))
        theirs.update(index, z.astype(np.float64))
        np.testing.assert_allclose(ours.targets.numpy(), theirs.t, atol=1e-6)
        loss = ours(torch.from_numpy(z), torch.from_numpy(labels), torch.from_numpy(index))
        # Near <p, t> = 1 - 1e-4 the logarithm multiplies float32's rounding by 1e4.
        assert loss.item() == pytest.approx(theirs.loss(z.astype(np.float64), labels, index), rel=1e-4, abs=1e-3 * lam)


def test_gradient_is_liu_et_al_s_lemma():
    elr, z = moved(beta=0.5), logits(1, scale=1.5).requires_grad_()
    elr(z, LABELS, INDEX).backward()
    p = numpy_softmax(z.detach().numpy().astype(np.float64))
    assert p.min() > 1e-4
    assert p.max() < 1 - 1e-4  # nothing clamped here
    expected = np.zeros_like(p)
    for b in range(BATCH):
        t = elr.targets[INDEX[b]].numpy().astype(np.float64)
        for c in range(CLASSES):
            g = p[b, c] / (1 - p[b] @ t) * sum((t[k] - t[c]) * p[b, k] for k in range(CLASSES))
            expected[b, c] = (p[b, c] - (LABELS[b] == c).item() + elr.lam * g) / BATCH
    np.testing.assert_allclose(z.grad.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 6.0, 25.0])
def test_gradient_agrees_with_finite_differences(scale):
    elr, z = moved(), logits(3, scale).requires_grad_()
    elr(z, LABELS, INDEX).backward()
    reference = NumpyELR(N, CLASSES, elr.beta, elr.lam)
    reference.t = elr.targets.numpy().astype(np.float64)
    z64, h = z.detach().numpy().astype(np.float64), 1e-5
    for b in range(BATCH):
        for c in range(CLASSES):
            up, down = z64.copy(), z64.copy()
            up[b, c] += h
            down[b, c] -= h
            slope = (reference.loss(up, LABELS, INDEX) - reference.loss(down, LABELS, INDEX)) / (2 * h)
            assert z.grad[b, c].item() == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    z = logits(4, 5).to(dtype)
    elr, same = moved(), moved()
    elr.update(INDEX, z)
    same.update(INDEX, z.float())
    assert elr.targets.dtype == torch.float32
    assert elr.targets.equal(same.targets)
    pairs = [(elr(z, LABELS, INDEX), elr(z.float(), LABELS, INDEX))]
    for row in losses.LOSSES.values():
        if row.function:
            values = row.parameters.values()
            pairs.append(tuple(row.function(logits, LABELS, *values) for logits in (z, z.float())))
    for half, full in pairs:
        assert half.dtype == torch.float32
        assert half.equal(full)


def test_bfloat16_autocast_does_not_reach_the_loss():
    elr, z = moved(), logits(4, 5)
    outside = elr(z, LABELS, INDEX)
    with torch.autocast("cpu", torch.bfloat16):
        assert elr(z, LABELS, INDEX).equal(outside)


@pytest.mark.parametrize(("scale", "top_k"), [(1e3, None), (1e6, None), (1e3, 1), (1e6, 3)])
def test_certain_networks_get_finite_losses(scale, top_k):
    z = torch.eye(CLASSES)[[0, 1, 2, 3, 0]] * scale
    z.requires_grad_()
    elr = ELRLoss(N, CLASSES, beta=0.5, top_k=top_k)
    for _ in range(100):
        elr.update(INDEX, z.detach())
    loss = elr(z, LABELS, INDEX)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()


def test_update_returns_nothing_and_forward_changes_nothing():
    elr, z = moved(), logits(5).requires_grad_()
    before = elr.targets.clone()
    first = elr(z, LABELS, INDEX)
    assert elr(z, LABELS, INDEX).equal(first)
    assert elr.targets.equal(before)
    assert elr.update(INDEX, z) is None
    assert not elr.targets.requires_grad
    assert not elr.targets.equal(before)
    assert z.grad is None


@pytest.mark.parametrize("outside", [N, N + 100, -1, -N])
def test_indices_outside_the_table_raise(outside):
    elr = moved()
    before, index = elr.targets.clone(), INDEX.clone()
    index[2] = outside
    with pytest.raises(IndexError, match=f"^ELRLoss: index outside the table: allowed are 0 to {N - 1}$"):
        elr.update(index, logits())
    with pytest.raises(IndexError, match="index outside the table"):
        elr(logits(), LABELS, index)
    assert elr.targets.equal(before)


@pytest.mark.parametrize("shape", [(BATCH, CLASSES + 1), (BATCH - 1, CLASSES), (BATCH * CLASSES,)])
def test_logits_of_another_shape_raise(shape):
    with pytest.raises(ValueError, match=r"logits .* for 5 indices: allowed is \(5, 4\)"):
        moved().update(INDEX, torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10), "num_samples=0"),
        ((10, 1), "num_classes=1"),
        ((10, 10, 1.0), "beta=1.0: allowed is 0 <= beta < 1"),
        ((10, 10, -0.1), "beta=-0.1"),
        ((10, 10, math.nan), "beta=nan"),
        ((10, 10, 0.7, -1), "lam=-1: allowed is 0 <= lam"),
        ((10, 10, 0.7, math.nan), "lam=nan"),
        ((10, 10, 0.7, 3.0, 0), "top_k=0: allowed is 1 <= top_k <= 10, or None"),
        ((10, 10, 0.7, 3.0, 11), "top_k=11"),
    ],
)
def test_settings_that_make_no_sense_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        ELRLoss(*arguments)


@pytest.mark.parametrize(
    ("top_k", "names"), [(None, ["targets"]), (CLASSES, ["targets"]), (2, ["values", "kept", "rest"])]
)
def test_targets_travel_in_the_state_dict(top_k, names):
    elr, fresh = moved(top_k=top_k), ELRLoss(N, CLASSES, top_k=top_k)
    assert list(elr.state_dict()) == names
    assert list(elr.parameters()) == []
    fresh.load_state_dict(elr.state_dict())
    z, all_of_them = logits(6), torch.arange(N)
    assert fresh.target_rows(all_of_them).equal(elr.target_rows(all_of_them))
    for module in (elr, fresh):
        module.update(INDEX, z)
    assert fresh(z, LABELS, INDEX).equal(elr(z, LABELS, INDEX))
    with pytest.raises(RuntimeError, match="size mismatch"):
        ELRLoss(N + 1, CLASSES, top_k=top_k).load_state_dict(elr.state_dict())


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("beta", [0.5, 0.9])
@pytest.mark.parametrize(("scale", "noise"), [(2, 0.5), (3, 3.0)])
def test_top_k_is_as_near_the_dense_loss_as_its_docstring_says(scale, noise, beta, labelled):
    """Loss and gradients, step by step: the bound holds, is not far above what happens, and both fall with K."""
    batch, classes, lam, draw = 16, 50, 3.0, torch.Generator().manual_seed(0)
    index, labels = torch.arange(batch), torch.randint(classes, (batch,), generator=draw)
    said = scale * torch.randn(batch, classes, generator=draw) + noise * torch.randn(12, batch, classes, generator=draw)
    largest = []
    for top_k, times in ((2, 20), (8, 30), (16, 60), (49, 20)):
        _, top = pair = ELRLoss(batch, classes, beta, lam), ELRLoss(batch, classes, beta, lam, top_k)
        d, off, allowed = torch.zeros(batch), [], []
        for z in said:
            z.requires_grad_()
            for elr in pair:
                elr.update(index, z, labels if labelled else None)
            loss, near = (elr(z, labels, index) for elr in pair)
            slope, near_slope = (torch.autograd.grad(value, z)[0] for value in (loss, near))
            off.append([(near - loss).abs().item(), *(near_slope - slope).abs().sum(dim=1).tolist()])
            p = z.detach().softmax(dim=1).clamp(1e-4, 1 - 1e-4)
            w = 1 / (1 - torch.maximum(*((p * elr.target_rows(index)).sum(dim=1) for elr in pair)))
            d = beta * d + torch.minimum(top.rest[:, 0], top.values[:, -1] + 0.001)
            allowed.append([lam * (d * w).mean().item(), *(lam / batch * d * w * (1 + w / 2)).tolist()])
        off, allowed = np.array(off), np.array(allowed)  # (steps, 1 + batch): the loss, and each image's gradient
        assert (off <= allowed + 1e-6).all()
        assert (allowed[:, 0] / off[:, 0]).min() < times
        assert (allowed[:, 1:] / off[:, 1:]).min() < times
        largest.append((off[:, 0].max(), off[:, 1:].max()))
    assert (np.diff(largest, axis=0) < 0).all()
    assert (np.array(largest[-1]) < np.array(largest[0]) / 20).all()


@pytest.mark.parametrize(("classes", "number"), [(4000, torch.int16), (32_768, torch.int16), (40_000, torch.int32)])
def test_top_k_of_six_million_products_fits_into_700_mb(classes, number):
    elr, index = ELRLoss(2, classes, top_k=16), torch.tensor([1])
    assert sum(part.nbytes for part in elr.buffers()) / 2 * 6e6 < 700e6
    assert elr.kept.dtype == number
    z, last = torch.zeros(1, classes), classes - 1
    z[0, last] = 20
    elr.update(index, z, labels=torch.tensor([5]))
    row = elr.target_rows(index)[0]
    assert row.argmax() == last
    assert row.sum() == pytest.approx(0.3, rel=1e-4)  # moved from zero by 1 - beta
    assert elr.kept[1, :2].tolist() == [5, last]  # the label first, then the largest
    assert elr.target_rows(torch.tensor([0])).count_nonzero() == 0


@settings(max_examples=30, deadline=None)
@given(
    alpha=st.floats(0, 10),
    beta=st.floats(0, 10),
    scale=st.floats(0.1, 8),
    classes=st.integers(2, 12),
    seed=st.integers(0, 2**31),
)
def test_symmetric_losses_by_brute_force(alpha, beta, scale, classes, seed):
    rng = np.random.default_rng(seed)
    z = rng.normal(0, scale, (6, classes)).astype(np.float32)
    labels = rng.integers(0, classes, 6)
    ce = nce = rce = 0.0
    for row, y in zip(numpy_softmax(z.astype(np.float64)), labels, strict=True):
        one_hot = [float(k == y) for k in range(classes)]
        ce += -sum(q * math.log(p) for q, p in zip(one_hot, row, strict=True)) / 6
        rce += -sum(p * (math.log(q) if q > 0 else -4) for q, p in zip(one_hot, row, strict=True)) / 6
        # Cross-entropy with the given label over the sum of the cross-entropies with every label.
        nce += -math.log(row[y]) / sum(-math.log(p) for p in row) / 6
    tensors = torch.from_numpy(z), torch.from_numpy(labels)
    assert losses.cross_entropy(*tensors).item() == pytest.approx(ce, rel=1e-5)
    sce = losses.symmetric_cross_entropy(*tensors, alpha, beta).item()
    assert sce == pytest.approx(alpha * ce + beta * rce, rel=1e-5, abs=1e-5)
    assert losses.nce_rce(*tensors, alpha, beta).item() == pytest.approx(alpha * nce + beta * rce, rel=1e-5, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(q=st.floats(1e-3, 1), scale=st.floats(0.1, 8), classes=st.integers(2, 12), seed=st.integers(0, 2**31))
def test_generalized_cross_entropy_is_its_closed_form(q, scale, classes, seed):
    """(1 - p_y^q) / q, and its gradient p_y^q (p_k - [k = y]) in float64, an image at a time."""
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(0, scale, (6, classes)).astype(np.float32), rng.integers(0, classes, 6)
    p = numpy_softmax(z.astype(np.float64))
    chosen = p[np.arange(6), labels]
    logits = torch.from_numpy(z).requires_grad_()
    loss = losses.generalized_cross_entropy(logits, torch.from_numpy(labels), q)
    loss.backward()
    assert loss.item() == pytest.approx(np.mean((1 - chosen**q) / q), rel=1e-4, abs=1e-6)
    expected = chosen[:, None] ** q * (p - np.eye(classes)[labels]) / 6
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-3, atol=1e-6)


def test_generalized_cross_entropy_lies_between_cross_entropy_and_absolute_error():
    z = logits(8)
    p = z.softmax(dim=1)
    ce, one = (losses.generalized_cross_entropy(z, LABELS, q).item() for q in (1e-6, 1.0))
    assert ce == pytest.approx(losses.cross_entropy(z, LABELS).item(), rel=1e-4)
    one_hot = torch.nn.functional.one_hot(LABELS, CLASSES)
    assert one == pytest.approx((1 - p[torch.arange(BATCH), LABELS]).mean().item(), rel=1e-5)
    assert 2 * one == pytest.approx((p - one_hot).abs().sum(dim=1).mean().item(), rel=1e-5)
    certain = (1e4 * one_hot).float().requires_grad_()  # all right, then all wrong: finite either way
    for labels in (LABELS, (LABELS + 1) % CLASSES):
        loss = losses.generalized_cross_entropy(certain, labels, 0.7)
        loss.backward()
        assert loss.isfinite()
        assert certain.grad.isfinite().all()


def test_the_table_names_every_loss():
    """Its rows are what RunConfig takes, and each can be drawn; a row without a loss cannot be made."""
    assert set(losses.LOSSES) == set(get_args(RunConfig.model_fields["loss"].annotation))
    for shown in ("label", "colour"):
        assert len({getattr(row, shown) for row in losses.LOSSES.values()}) == len(losses.LOSSES)
    for name, row in losses.LOSSES.items():
        config = RunConfig(loss=name)
        assert {field: getattr(config, field) for field in row.parameters} == losses.defaults(name, "digits")
        others = {field for other in losses.LOSSES.values() for field in other.parameters} - row.parameters.keys()
        assert all(getattr(config, field) is None for field in others)
    assert losses.defaults("elr", "cifar100") == {"beta": 0.9, "lam": 7.0}
    with pytest.raises(ValueError, match="needs a function or a module, and not both"):
        losses.Loss("nothing", "#000000", {})


@pytest.mark.parametrize("top_k", [None, 1])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_leaves_its_target_alone(bad, top_k):
    loss_fn = ELRLoss(num_samples=3, num_classes=2, beta=0.5, top_k=top_k)
    index = torch.tensor([0, 2])
    loss_fn.update(index, torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    before = loss_fn.target_rows(torch.arange(3))
    loss_fn.update(index, torch.tensor([[bad, 0.0], [0.0, 2.0]]))
    after = loss_fn.target_rows(torch.arange(3))
    assert torch.equal(after[:2], before[:2])
    assert (after[2] != before[2]).all()


def test_labels_of_another_number_than_logits_raise():
    with pytest.raises(ValueError, match="ELRLoss: 3 labels for 4 images; give one for each"):
        losses.ELRLoss(20, 10, top_k=2).update(torch.arange(4), torch.randn(4, 10), torch.arange(3))
    logits, few = torch.randn(6, 4), torch.zeros(3, dtype=torch.int64)
    for row in losses.LOSSES.values():
        if row.function is not None:
            with pytest.raises((ValueError, RuntimeError)):
                row.function(logits, few, *row.parameters.values())


@pytest.mark.parametrize("top_k", [None, 2])
@pytest.mark.parametrize("cast", [torch.bfloat16, torch.float16, torch.float64])
def test_the_targets_keep_their_precision_when_a_model_is_cast(cast, top_k):
    model = torch.nn.ModuleList([torch.nn.Linear(3, 4), losses.ELRLoss(5, 4, top_k=top_k)])
    kinds = [buffer.dtype for buffer in model.buffers()]
    model.to(cast)
    assert model[0].weight.dtype == cast
    assert [buffer.dtype for buffer in model.buffers()] == kinds
    index, logits = torch.arange(3), model[0](torch.randn(3, 3, dtype=cast))
    model[1].update(index, logits)
    assert model[1](logits, torch.zeros(3, dtype=torch.int64), index).isfinite()
    assert next(model.to("meta")[1].buffers()).device.type == "meta"


@pytest.mark.parametrize(
    "index", [[0, 1], np.array([0, 1]), torch.tensor(1), torch.tensor([0, 1], dtype=torch.uint8), torch.ones(2) > 0]
)
def test_an_index_of_another_kind_raises(index):
    with pytest.raises(ValueError, match=r"^ELRLoss: index is .*: allowed is a tensor \(batch,\) of int64$"):
        losses.ELRLoss(5, 4).update(index, torch.zeros(2, 4))

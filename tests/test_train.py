"""One training: its record, what it repeats bit for bit, how it ends when it cannot go on."""

import json
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from small_dataset import comparable, tiny
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts as Cosine
from torch.optim.lr_scheduler import MultiStepLR

from elrkit import data, losses, models, precision, records, train
from elrkit.config import RunConfig
from elrkit.train import fit, label_outcomes, learning_rate, set_up

OUTCOMES = ("right_correct", "right_other", "wrong_correct", "wrong_memorized", "wrong_other")


def trainer_of(config, dataset):
    trainer = train.Trainer(config, dataset, set_up(config, dataset), torch.device("cpu"))
    trainer.model.train()
    trainer.start_epoch()
    return trainer


def test_the_seed_alone_decides_and_the_global_generators_are_left_alone(digits):
    """That one config gives one record, bit for bit, is held for every recipe where runs are resumed."""
    config, found = tiny(augmentation="fresh", loss="elr"), []
    for seed in (5, 99):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the global generator is what must not matter
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
        found.append(comparable(fit(config, dataset=digits)))
        assert torch.get_rng_state().equal(before[0])
        assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
        assert random.getstate() == before[2]
    assert found[0] == found[1] != comparable(fit(config.with_(seed=1), dataset=digits))


def test_the_record_holds_what_it_promises(digits, tmp_path):
    config = tiny(loss="elr", epochs=3, schedule="multistep", milestones=(1, 2), gamma=0.1)
    record = fit(config, dataset=digits, state_dir=tmp_path)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert records.check(record, "record") is record
    assert (record["status"], record["diverged"]) == ("finished", None)
    assert RunConfig(**record["config"]) == config
    assert record["data"] == {
        "fingerprint": digits.fingerprint, "test_truth": None, "train_images": 190, "held_out_images": 0,
        "test_images": 450, "classes": 10, "image_shape": [1, 8, 8],
        "realized_noise_rate": set_up(config, digits).realized_rate,
    }  # fmt: skip
    assert record["versions"].keys() == {"elrkit", "python", "torch", "torchvision", "numpy"}
    assert record["device"]["type"] == "cpu"
    assert record["execution"] == {"threads": 1, "memory_format": "channels_last"}
    assert all(len(record["timing"][k]) == 3 for k in ("train_seconds", "evaluation_seconds", "images_per_second"))
    assert record["curves"]["epoch"] == [1, 2, 3]
    assert record["curves"]["lr"] == pytest.approx([0.05, 0.005, 0.0005])
    assert record["curves"].keys() == {
        "epoch", "lr", "train_loss", "test_loss", "test_top1", "test_top5", "test_top1_noisy",
        *OUTCOMES, *(f"batches_{name}" for name in OUTCOMES),
    }  # fmt: skip


def test_the_last_epoch_s_numbers_are_the_final_network_s(digits, tmp_path):
    config = tiny(loss="elr", split="held_out", epochs=3)
    curves = {name: column[-1] for name, column in fit(config, dataset=digits, state_dir=tmp_path)["curves"].items()}
    outcome, problem = train.load_outcome(tmp_path), set_up(config, digits)
    model = models.build("small_resnet", 10, 1, 8, 1)
    model.load_state_dict(outcome["model"])
    model.eval()

    @torch.no_grad()
    def logits_of(images):
        pixels = images.permute(0, 3, 1, 2).double() / 255
        return model(((pixels - digits.mean[0]) / digits.std[0]).float()).double().numpy()

    z, truth = logits_of(digits.test_images), digits.test_labels.numpy()
    ranked = np.argsort(-z, axis=1)
    assert curves["test_top1"] == np.mean(ranked[:, 0] == truth)
    assert curves["test_top5"] == np.mean([y in row[:5] for row, y in zip(ranked, truth, strict=True)])
    assert curves["test_top1_noisy"] == np.mean(ranked[:, 0] == problem.test_given)
    assert curves["test_loss"] == pytest.approx(-np.mean(log_softmax(z)[np.arange(450), truth]), rel=1e-5)
    held_out = logits_of(digits.train_images[problem.held_out_index]).argmax(axis=1)
    assert curves["held_out_top1_noisy"] == np.mean(held_out == problem.held_out_given)
    assert curves["held_out_top1"] == np.mean(held_out == digits.train_labels.numpy()[problem.held_out_index])
    held_out_wrong = problem.held_out_given != problem.held_out_truth
    memorized = (held_out == problem.held_out_given)[held_out_wrong]
    assert curves["held_out_wrong_memorized"] == pytest.approx(np.mean(memorized))
    z = logits_of(digits.train_images[problem.index])
    wrong = problem.given != problem.truth
    assert curves["wrong_memorized"] == pytest.approx(np.mean((z.argmax(axis=1) == problem.given)[wrong]))
    assert curves["right_correct"] == pytest.approx(np.mean((z.argmax(axis=1) == problem.given)[~wrong]))
    assert outcome["targets"].shape == (len(problem.index), 10)
    # Three moves of a row that began at zero: 1 - 0.7^3 of it is there.
    np.testing.assert_allclose(outcome["targets"].sum(dim=1), 1 - 0.7**3, atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "size", "refused_"), [(2, 65, True), (2, 66, False), (1, 65, False), (None, 65, True)]
)
def test_a_last_batch_of_one_small_image_is_refused_before_the_training(stride, size, refused_, digits):
    """Its map is one pixel in the end, of which batch normalization cannot tell the deviation."""
    model = {"model": "resnet18", "width": None} if stride is None else {}
    config = tiny(train_size=size, stem_stride=stride, epochs=1, **model)
    if refused_:
        with refused(data.DataError, "batch_size=64: leaves one of the 65 training images alone", "choose another"):
            fit(config, dataset=digits)
    else:
        assert fit(config, dataset=digits)["status"] == "finished"


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def test_an_epoch_takes_each_image_once_and_remembers_its_losses_and_predictions(digits):
    trainer, seen, guessed = trainer_of(tiny(augmentation="fresh"), digits), [], torch.full((190,), -1)
    inner, batch_losses = trainer.loss, []

    def loss(logits, labels, index, move_targets):
        seen.append(index.clone())
        guessed[index] = logits.argmax(dim=1)
        batch_losses.append(inner(logits, labels, index, move_targets))
        return batch_losses[-1]

    trainer.loss = loss
    for _ in range(trainer.steps):
        trainer.step()
    assert [len(index) for index in seen] == [64, 64, 62]
    assert torch.cat(seen).sort().values.equal(torch.arange(190))
    assert trainer.batch_predictions.equal(guessed)
    trainer.end_epoch(1.0)
    expected = sum(len(index) * loss.item() for index, loss in zip(seen, batch_losses, strict=True)) / 190
    assert trainer.curves["train_loss"] == [pytest.approx(expected, rel=1e-6)]  # the mean over images


@pytest.mark.parametrize(
    ("schedule", "changes", "scheduler"),
    [
        ("multistep", {"milestones": (40, 80)}, lambda o: MultiStepLR(o, [40, 80], gamma=0.01)),
        ("multistep", {"milestones": (0, 7), "gamma": 0.5}, lambda o: MultiStepLR(o, [7], gamma=0.5)),
        ("cosine", {}, lambda o: Cosine(o, T_0=10, eta_min=0.001)),
        ("cosine", {"restart_epochs": 7, "eta_min": 0.0}, lambda o: Cosine(o, T_0=7, eta_min=0.0)),
        ("constant", {}, lambda o: MultiStepLR(o, [])),
    ],
)
def test_learning_rates_are_torch_s(schedule, changes, scheduler):
    config = RunConfig(lr=0.02, epochs=120, schedule=schedule, **changes)
    # A milestone at 0 multiplies from the start, where torch's scheduler would wait for its first step.
    first = 0.02 * (0.5 if config.milestones and config.milestones[0] == 0 else 1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=first)
    schedule = scheduler(optimizer)
    for epoch in range(120):
        assert learning_rate(config, epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        schedule.step()


def test_the_optimizer_follows_the_schedule(digits):
    trainer = trainer_of(tiny(schedule="multistep", milestones=(1,), gamma=0.1), digits)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.05
    trainer.epoch = 1
    trainer.start_epoch()
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(0.005)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=40))
def test_label_outcomes_by_brute_force(images):
    predicted, given_labels, truth = (torch.tensor(column) for column in zip(*images, strict=True))
    counts = dict.fromkeys(OUTCOMES, 0)
    for p, g, t in images:
        if g == t:
            counts["right_correct" if p == g else "right_other"] += 1
        else:
            counts["wrong_memorized" if p == g else "wrong_correct" if p == t else "wrong_other"] += 1
    right, wrong = sum(g == t for _, g, t in images), sum(g != t for _, g, t in images)
    found = label_outcomes(predicted, given_labels, truth)
    assert found.keys() == counts.keys()
    for name, count in counts.items():
        of = right if name.startswith("right") else wrong
        assert found[name] == (pytest.approx(count / of) if of else None)


# What is trained on


def pixels(n, classes=10):
    """A dataset of one-pixel images of the size of CIFAR-10."""
    images, labels = torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n) % classes
    names = tuple(map(str, range(classes)))
    return data.Dataset(
        "pixels", data.one_each(images), labels, data.one_each(images[:100]), labels[:100], names, (0.5,), (0.5,),
        labels, labels,
    )  # fmt: skip


def test_held_out_split_is_45_to_5_in_each_class_with_noise_in_both():
    config = RunConfig(dataset="cifar10", split="held_out", noise_rate=0.2, noise_convention="others")
    problem = set_up(config, pixels(50_000))
    assert np.bincount(problem.truth).tolist() == [4_500] * 10
    assert np.bincount(problem.held_out_index % 10).tolist() == [500] * 10
    assert sorted([*problem.index, *problem.held_out_index]) == list(range(50_000))
    assert (problem.truth == problem.index % 10).all()
    labels = (problem.given, problem.index), (problem.held_out_given, problem.held_out_index)
    changed = [np.sum(given != index % 10) for given, index in (*labels, (problem.test_given, np.arange(100)))]
    assert (changed, problem.realized_rate) == ([9_000, 1_000, 20], 0.2)


def test_without_a_split_all_images_train_and_the_noise_seed_decides():
    config = RunConfig(dataset="cifar10", noise_rate=0.2)
    problem = set_up(config, pixels(50_000))
    assert (problem.index == np.arange(50_000)).all()
    assert len(problem.held_out_index) == 0
    changed = problem.given != problem.truth
    assert problem.realized_rate == changed.mean()
    assert abs(changed.sum() - 9_000) < 5.5 * math.sqrt(10_000 * 0.09)  # a tenth of the drawn labels is the true one
    assert (set_up(config.with_(seed=1), pixels(50_000)).given == problem.given).all()
    assert (set_up(config.with_(noise_seed=1), pixels(50_000)).given != problem.given).any()


def test_a_part_of_the_images_is_chosen_by_the_noise_seed():
    dataset = pixels(1_000)
    config = RunConfig(dataset="x.npz", train_size=300)
    problem = set_up(config, dataset)
    assert len(set(problem.index)) == 300
    assert (problem.given == dataset.train_labels.numpy()[problem.index]).all()
    assert problem.realized_rate == 0
    assert (set_up(config.with_(seed=4), dataset).index == problem.index).all()
    assert (set_up(config.with_(noise_seed=4), dataset).index != problem.index).any()
    with pytest.raises(data.DataError, match=r"^train_size=2000: x.npz has 1000 training images$"):
        set_up(config.with_(train_size=2000), dataset)


def test_human_labels_are_taken_image_by_image(tmp_path, monkeypatch):
    monkeypatch.setenv("ELRKIT_DATA", str(tmp_path))
    dataset = pixels(50_000)
    human = np.random.default_rng(0).integers(0, 10, 50_000)
    np.savez(tmp_path / "cifar10n.npz", clean=dataset.train_labels.numpy(), worst=human)
    config = RunConfig(dataset="cifar10", noise="human", train_size=1_000, split="held_out")
    problem = set_up(config, dataset)
    assert (problem.given == human[problem.index]).all()
    assert (problem.held_out_given == human[problem.held_out_index]).all()
    assert problem.realized_rate == np.mean(human[problem.index] != problem.index % 10)
    (tmp_path / "cifar10n.npz").unlink()
    with pytest.raises(data.DataError, match=r"^human labels: put CIFAR-10N's cifar10n.npz or CIFAR-10_human.pt into"):
        set_up(config, dataset)


# Options


def test_evaluations_of_the_training_images_are_as_rare_as_asked(digits):
    curves = fit(tiny(epochs=5, eval_every=2), dataset=digits)["curves"]
    assert [value is not None for value in curves["wrong_memorized"]] == [False, True, False, True, True]
    for name in ("test_top1", "batches_wrong_memorized", "train_loss"):
        assert None not in curves[name]


def test_progress_counts_up(digits, monkeypatch):
    seen, clock = [], iter(range(10_000))
    monkeypatch.setattr(train.time, "monotonic", lambda: float(next(clock)))
    fit(tiny(), dataset=digits, on_progress=seen.append)
    assert [p[:2] for p in seen] == [(epoch, 2) for epoch in (1, 2) for step in (1, 2, 3)]
    assert all(p.images_per_second > 0 for p in seen)
    assert seen[-1].seconds_left == 0


def test_prediction_restores_the_mode_and_is_float32(digits):
    trainer = trainer_of(tiny(), digits)
    logits = train.predict(trainer.model, trainer.test.images, "bfloat16")
    assert trainer.model.training
    assert logits.dtype == torch.float32
    exact = train.predict(trainer.model, trainer.test.images)
    assert not logits.equal(exact)
    torch.testing.assert_close(logits, exact, atol=0.1, rtol=0.1)


def test_fresh_scaler_skips_and_counts_overflowing_steps(digits):
    """Gradients times 65,536 overflow float16 for a large loss: the step is left out, as in the paper's code."""
    large = trainer_of(tiny(precision="float16_fresh_scaler", loss="sce", loss_alpha=1e5, loss_beta=0.0), digits)
    before = [p.detach().clone() for p in large.model.parameters()]
    for _ in range(large.steps):
        large.step()
    assert large.skipped_steps == 3
    assert all(p.equal(b) for p, b in zip(large.model.parameters(), before, strict=True))
    large.end_epoch(1.0)
    assert (large.curves["skipped_steps"], large.skipped_steps) == ([3], 0)
    record = fit(tiny(precision="float16_fresh_scaler", loss="sce", loss_alpha=1e-3, loss_beta=0.0), dataset=digits)
    assert record["curves"]["skipped_steps"] == [0, 0]  # a record without a scaler has no such curve: see above
    assert record["execution"]["float16"] == "rounded float32"


# 16 bits on CPUs that lack them

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("dtype", "scale", "unit"),
    [(torch.float16, 1.0, 2**-10), (torch.float16, 65_536.0, 2**-10), (torch.bfloat16, 1.0, 2**-7)],
)
def test_rounded_values_are_those_of_torchs_autocast(digits, dtype, scale, unit):
    """Logits, batch-norm statistics and gradients of the whole net, right to the type's digits; not float32's."""

    def run(context):
        trainer = trainer_of(tiny(width=16, batch_size=64), digits)
        images = trainer.train.images.batch(torch.arange(64), None, None)
        with context:
            logits = trainer.model(images)
        (losses.cross_entropy(logits.float(), trainer.train.given[:64]) * scale).backward()
        statistics = [b for b in trainer.model.buffers() if b.is_floating_point()]
        return logits.detach().float(), statistics, [p.grad / scale for p in trainer.model.parameters()]

    theirs = run(torch.autocast("cpu", dtype=dtype))
    ours = run(precision.RoundedValues(dtype))
    exact = run(precision.autocast("float32", CPU))

    def distance(a, b):
        return float((a - b).norm() / b.norm())

    for rounded in (ours[0], *(gradient * scale for gradient in ours[2] if gradient.ndim > 1)):  # exactly 16 bits wide
        assert rounded.equal(rounded.to(dtype).float())
    assert 0 < distance(ours[0], exact[0]) < 2 * unit
    assert distance(ours[0], theirs[0]) < 2 * unit
    for a, b in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(a, b, rtol=2 * unit, atol=unit / 10)
    for a, b, c in zip(ours[2], theirs[2], exact[2], strict=True):
        assert distance(a, b) < max(2 * distance(b, c), 5 * unit)


def test_rounded_values_overflow_and_vanish():
    big, small = torch.tensor([65_519.0, 65_520.0, -1e5]), torch.tensor([2.0**-24, 2.0**-26])
    with precision.RoundedValues(torch.float16):
        assert (big * 1).tolist() == [65_504.0, math.inf, -math.inf]
        assert (small * 1).tolist() == [2.0**-24, 0.0]
    with precision.RoundedValues(torch.bfloat16):
        assert (big * 1).tolist() == [65_536.0, 65_536.0, -99_840.0]
        assert (small * 1).tolist() == small.tolist()


def test_a_cpu_computes_in_bfloat16_only_where_it_can(digits, monkeypatch):
    """Elsewhere float32 is rounded: the record says so."""
    config = tiny(precision="bfloat16", train_size=128, epochs=1)
    for capability, bf16, rounded in (("AVX2", True, True), ("AVX512", False, True), ("AVX512", True, False)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)  # noqa: B023
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)  # noqa: B023
        execution = fit(config, dataset=digits)["execution"]
        assert execution.get("bfloat16") == ("rounded float32" if rounded else None)


# Ends that are none


LOST = {  # what ends a run by precision; a loss scaler does not hide that the weights are lost
    "float32": "the training loss was not a finite number",
    "float16_fresh_scaler": "weights or batch-norm statistics were not finite numbers",
}


@pytest.mark.parametrize("precision", LOST)
def test_what_is_not_finite_ends_the_run_with_a_record(digits, precision):
    config = tiny(lr=1e30, epochs=5, precision=precision)
    record = fit(config, dataset=digits)
    where = record["diverged"]
    assert (record["status"], where["reason"]) == ("diverged", LOST[precision])
    assert where["epoch"] <= 2
    assert {len(column) for column in record["curves"].values()} <= {where["epoch"] - 1}
    assert records.check(record, "record") is record
    assert comparable(fit(config, dataset=digits)) == comparable(record)


def spoil_the_fifth_step(monkeypatch, bad):
    calls = iter(range(1000))

    def spoiled(logits, labels):
        loss = losses.cross_entropy(logits, labels)
        return loss * bad if logits.requires_grad and next(calls) == 4 else loss

    monkeypatch.setitem(losses.LOSSES, "ce", replace(losses.LOSSES["ce"], function=spoiled))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_record_says_at_which_step(digits, monkeypatch, tmp_path, bad):
    """However often it was saved meanwhile: the fifth step is the second of the second epoch."""
    found = []
    for seconds in (1e9, 0.0):
        spoil_the_fifth_step(monkeypatch, bad)
        found.append(fit(tiny(epochs=4), dataset=digits, state_dir=tmp_path / "s", checkpoint_seconds=seconds))
    assert found[0]["diverged"] == {"epoch": 2, "step": 2, "reason": LOST["float32"]}
    assert found[0]["curves"]["epoch"] == [1]
    assert comparable(found[0]) == comparable(found[1])


def test_a_loss_scaler_skips_a_batch_whose_loss_is_not_finite_and_goes_on(digits, monkeypatch):
    config = tiny(precision="float16_fresh_scaler", epochs=3)
    plain = fit(config, dataset=digits)["curves"]
    spoil_the_fifth_step(monkeypatch, math.inf)
    record = fit(config, dataset=digits)
    assert record["status"] == "finished"
    more = np.subtract(record["curves"]["skipped_steps"], plain["skipped_steps"])
    assert more[:2].tolist() == [0, 1]
    assert np.isfinite(record["curves"]["train_loss"]).all()


def no_cuda_memory(self):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def no_cpu_memory(self):
    torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.parametrize("fails", [no_cuda_memory, no_cpu_memory])
@pytest.mark.parametrize("where", ["step", "end_epoch", "__init__"])
def test_out_of_memory_says_what_to_reduce(digits, monkeypatch, fails, where):
    monkeypatch.setattr(train.Trainer, where, lambda self, *args: fails(self))
    parts = ("out of memory on cpu", "reduce batch_size (64)", "--jobs", "smaller model", "symmetric 40 %")
    with refused(train.OutOfMemory, *parts):
        fit(tiny(), dataset=digits)


def test_other_errors_are_not_mistaken_for_it(digits, monkeypatch):
    def broken(self):
        raise RuntimeError("something else")

    monkeypatch.setattr(train.Trainer, "step", broken)
    with pytest.raises(RuntimeError, match=r"^something else$"):
        fit(tiny(), dataset=digits)


# The phenomenon, small


def test_elr_sees_through_wrong_labels_that_cross_entropy_memorizes(digits):
    config = RunConfig(train_size=800, width=8, noise_rate=0.4, epochs=25, lr=0.05, eval_every=25, noise_seed=1)
    ce, elr = (
        {name: column[-1] for name, column in fit(config.with_(loss=loss), dataset=digits)["curves"].items()}
        for loss in ("ce", "elr")
    )
    assert elr["test_top1"] > max(0.8, ce["test_top1"])
    assert elr["wrong_correct"] > 0.6 > 0.3 > elr["wrong_memorized"]
    assert ce["wrong_memorized"] > 2 * elr["wrong_memorized"]
    assert ce["train_loss"] < -math.log(0.1)

"""The speed benchmark: its operation counts against a count by hand, its rows, and one short call from end to end."""

import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def throughput(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import throughput

    return throughput


def convolution(channels: int, out: int, kernel: int, side: int) -> int:
    """Multiply-adds of one convolution with `side` x `side` outputs."""
    return channels * out * kernel**2 * side**2


def forward_multiply_adds(blocks: tuple[int, ...], widths: tuple[int, ...], stem_side: int) -> tuple[int, int]:
    """Of a basic-block residual net with ten classes: all layers, and the stem alone."""
    side, channels = stem_side, widths[0]
    stem = convolution(3, channels, 3, side)
    total = stem
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        side = side // 2 if stage else side
        for block in range(count):
            total += convolution(channels, width, 3, side) + convolution(width, width, 3, side)
            if stage and not block:
                total += convolution(channels, width, 1, side)
            channels = width
    return total + channels * 10, stem


@pytest.mark.parametrize(
    ("model", "blocks", "widths", "stem_side"),
    [
        ("resnet34", (3, 4, 6, 3), (64, 128, 256, 512), 32),
        ("resnet18", (2, 2, 2, 2), (64, 128, 256, 512), 32),
        ("small_resnet", (1, 1, 1), (32, 64, 128), 16),
    ],
)
def test_operations_of_a_step(throughput, model, blocks, widths, stem_side):
    forward, stem = forward_multiply_adds(blocks, widths, stem_side)
    # Backward costs a forward for the weights and one for the inputs, which the first layer does not need.
    expected = 2 * (3 * forward - stem) / 1e9
    assert throughput.gflop_per_image(throughput.Case(model, "elr", "bfloat16")) == pytest.approx(expected, rel=1e-6)


def test_sam_counts_both_passes(throughput):
    plain, sam = (
        throughput.gflop_per_image(throughput.Case("small_resnet", loss, "float32")) for loss in ("ce", "sam")
    )
    assert sam == pytest.approx(2 * plain, rel=1e-12)


def test_rows(throughput):
    options = throughput.Options(reference=Path("checkout"), losses=("ce", "elr"))
    rows = throughput.cases(options, "cpu", cores=2)
    assert len(rows) == len(set(rows)) == 2 * 2 + 1 + 2
    assert [(r.model, r.precision, r.threads) for r in rows if r.jobs == 2] == [("small_resnet", "bfloat16", 1)]
    # The reference trains ResNet-34, so a CPU times it too.
    assert [(r.loss, r.precision, r.threads) for r in rows if r.model == "resnet34"] == [
        ("elr", "float32", 2),
        ("elr", "bfloat16", 2),
    ]
    gpu = throughput.cases(throughput.Options(), "cuda", cores=16)
    assert {r.jobs for r in gpu} == {1, 2, 3, 4, 6, 8}
    assert len([r for r in gpu if r.jobs == 1]) == 3 * 3 * 2


def test_ratio_to_the_reference(throughput):
    ours = dict(model="resnet34", loss="elr", precision="float32", jobs=1)
    rows = [
        ours | dict(images_per_second=300.0, cpu_milliseconds_per_image=4.0),
        ours | dict(images_per_second=600.0, cpu_milliseconds_per_image=2.0, precision="bfloat16"),
        ours | dict(images_per_second=900.0, cpu_milliseconds_per_image=1.0, loss="ce"),
        ours | dict(error="out of memory"),
    ]
    reference = dict(model="resnet34", images_per_second=100.0, cpu_milliseconds_per_image=10.0)
    assert throughput.compare(rows, [reference]) == [
        {"model": "resnet34", "precision": "float32", "ratio": 3.0, "ratio_of_cpu_time": 2.5},
        {"model": "resnet34", "precision": "bfloat16", "ratio": 6.0, "ratio_of_cpu_time": 5.0},
    ]


def test_a_short_call(throughput, tmp_path, capsys):
    throughput.main(
        throughput.Options(
            losses=("elr",), precisions=("bfloat16",), device="cpu", jobs=(2,), threads=1, batch=16, images=40,
            seconds=0.1, output=tmp_path,
        )
    )  # fmt: skip
    assert "small_resnet elr bfloat16" in capsys.readouterr().out
    (path,) = tmp_path.glob("throughput-cpu-*.json")
    record = json.loads(path.read_text())
    (row,) = record["rows"]
    assert (row["jobs"], row["threads"], row["batch"]) == (2, 1, 16)
    low, high = row["lowest_and_highest_window"]
    assert 0 < low <= high
    # Operations an image (some 0.09 GFLOP) are recorded to four decimals: the product repeats to a few parts in 1,000.
    assert row["tflops"] == pytest.approx(row["images_per_second"] * row["gflop_per_image"] / 1e3, rel=3e-3, abs=1e-4)
    assert len(row["steps"]) == 2
    assert {"date", "device", "versions", "settings"} <= record.keys()


def test_refusals(throughput, tmp_path):
    with pytest.raises(SystemExit, match="holds no trainer folder"):
        throughput.main(throughput.Options(reference=tmp_path))
    with pytest.raises(SystemExit, match="--images 100: fewer than one batch of 128"):
        throughput.main(throughput.Options(images=100))

"""How fast a training step is: images/s, TFLOP/s, and the share of what a large matrix product reaches beside it.

    python benchmarks/throughput.py                                     # this device's default rows
    python benchmarks/throughput.py --models resnet34 --losses elr --jobs 1 2 3 4 6 8
    python benchmarks/throughput.py --reference path/to/ELR             # and the code of Liu et al. beside it

Times the step of `elrkit.train.fit` itself, from uint8 images on the device to updated weights, on random images, so
no dataset is needed. Operations are counted by torch (2 FLOP a multiply-add; forward and backward of one
step), seconds are those of whole windows of steps with the device synchronized at both ends. Prints a table and writes
benchmarks/records/throughput-<device>.json.
"""

import dataclasses
import itertools
import json
import multiprocessing
import os
import queue
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import rich
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from elrkit import data, train
from elrkit.config import RunConfig
from elrkit.precision import rounds

HERE = Path(__file__).resolve().parent
WINDOWS = 3  # timed one after the other; their spread is the noise of the measurement
CLASSES = 10


@dataclass(frozen=True)
class Case:
    """One row: `jobs` processes train side by side, each with `threads` CPU threads."""

    model: str
    loss: str  # ce, elr, or sam: cross-entropy with rho 0.05
    precision: str
    jobs: int = 1
    threads: int = 1
    batch: int = 128

    def config(self) -> RunConfig:
        return RunConfig(
            dataset="cifar10", model=self.model, loss="elr" if self.loss == "elr" else "ce",
            sam_rho=0.05 if self.loss == "sam" else 0.0, precision=self.precision, batch_size=self.batch,
            augmentation="fresh",
        )  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What to time. Rows with one job: every combination; with more jobs: ELR (else the last loss) at the last
    precision, for each model."""

    models: tuple[Literal["small_resnet", "resnet18", "resnet34"], ...] | None = None
    """networks (none: all three on a GPU, the small one on a CPU)"""
    losses: tuple[Literal["ce", "elr", "sam"], ...] = ("ce", "elr", "sam")
    """training losses; sam is cross-entropy with sharpness-aware minimization"""
    precisions: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
    """network arithmetic"""
    jobs: tuple[int, ...] | None = None
    """processes side by side (none: 1, 2, 3, 4, 6, 8 on a GPU; 1 and the number of cores on a CPU)"""
    batch: int = 128
    """images a step"""
    images: int = 50_000
    """training images, rounded down to whole batches"""
    seconds: float | None = None
    """timed a row (none: 6 on a GPU, 3 on a CPU)"""
    threads: int | None = None
    """CPU threads a job (none: the cores shared out among the jobs)"""
    device: str | None = None
    """cuda or cpu (none: cuda where there is one)"""
    reference: Path | None = None
    """a checkout of shengliu66/ELR, timed in the same call with its own trainer, loader and loss"""
    output: Path = HERE / "records"
    """folder of the record"""


def cases(options: Options, device: str, cores: int) -> list[Case]:
    """The rows of a call, in order; with a reference, its own network (ResNet-34) with ELR is among them."""
    on_gpu = device == "cuda"
    models = options.models or (("small_resnet", "resnet18", "resnet34") if on_gpu else ("small_resnet",))
    jobs = options.jobs or ((1, 2, 3, 4, 6, 8) if on_gpu else tuple(sorted({1, cores})))

    def case(model: str, loss: str, precision: str, jobs: int) -> Case:
        threads = options.threads or max(1, cores // jobs)
        return Case(model, loss, precision, jobs, threads, options.batch)

    rows = []
    if 1 in jobs:
        rows = [case(*row, 1) for row in itertools.product(models, options.losses, options.precisions)]
    shared = "elr" if "elr" in options.losses else options.losses[-1]
    several = itertools.product(models, [n for n in jobs if n > 1])
    rows += [case(model, shared, options.precisions[-1], n) for model, n in several]
    if options.reference:
        for model, precision in itertools.product(dict.fromkeys([*models, "resnet34"]), options.precisions):
            compared = case(model, "elr", precision, 1)
            rows += [compared] if compared not in rows else []
    return rows


def random_images(count: int) -> data.Dataset:
    """`count` images of CIFAR's shape with random pixels and labels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    names = tuple(map(str, range(CLASSES)))
    test = images[:1], labels[:1]
    return data.Dataset("random", images, labels, *test, names, *data.CIFAR["cifar10"], labels, labels[:1])


def gflop_per_image(case: Case) -> float:
    """Operations of one training step by torch's counter, divided by its images (SAM counts both of its passes)."""
    small = dataclasses.replace(case, batch=2, precision="float32")
    steps = training_steps(small.config(), random_images(2), "cpu")
    with FlopCounterMode(display=False) as counter:
        next(steps)
    return counter.get_total_flops() / 2 / 1e9


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def matrix_product_tflops(device: str, precision: str, threads: int) -> float:
    """What a large square matrix product reaches on this device now: the median of about half a second of them.

    float32 on a GPU allows TF32, as cuDNN's convolutions do unless told otherwise. On a CPU without bfloat16 the
    training step computes in float32 and rounds, so that is the arithmetic to compare it with.
    """
    if rounds(precision, torch.device(device)):
        precision = "float32"
    side = 8192 if device == "cuda" else 2048
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, device=device, generator=generator).to(getattr(torch, precision)) for _ in range(2))
    threads_before, precision_before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        for _ in range(2):
            a @ b
        synchronize(device)
        times, group = [], 10 if device == "cuda" else 1
        until = time.perf_counter() + 0.5
        while len(times) < 3 or time.perf_counter() < until:
            started = time.perf_counter()
            for _ in range(group):
                a @ b
            synchronize(device)
            times.append((time.perf_counter() - started) / group)
    finally:
        torch.set_num_threads(threads_before)
        torch.set_float32_matmul_precision(precision_before)
    return 2 * side**3 / statistics.median(times) / 1e12


def _worker(
    rank: int, rows: list[Case], device: str, images: int, seconds: float, cache: str, barrier, results
) -> None:
    """Time the rows together with the other workers: those with rank < jobs train, the others wait at the barriers."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
    for row, case in enumerate(rows):
        found: dict = {}
        if rank == 0:
            matrix = [matrix_product_tflops(device, case.precision, case.jobs * case.threads)]
        barrier.wait()
        warm = False
        try:
            if rank < case.jobs:
                torch.set_num_threads(case.threads)
                steps = training_steps(case.config(), random_images(images // case.batch * case.batch), device)
                started = time.perf_counter()
                next(steps)
                synchronize(device)
                found["first_step_seconds"] = time.perf_counter() - started
                if device == "cuda" or found["first_step_seconds"] < seconds:  # else that step was warm-up enough
                    _pace(steps, device)
                    warm = True
        except RuntimeError as error:  # out of memory, or any other fault: the other rows go on
            found["error"] = str(error).splitlines()[0]
        barrier.wait()
        if "first_step_seconds" in found and "error" not in found:
            pace = _pace(steps, device) if warm else found["first_step_seconds"]  # now with the others at work
            found |= _time(steps, device, max(1, round(seconds / WINDOWS / pace)))
            if device == "cuda":
                found["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        steps = None
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        barrier.wait()
        if rank == 0:
            found["matrix_product_tflops"] = [
                *matrix,
                matrix_product_tflops(device, case.precision, case.jobs * case.threads),
            ]
        results.put((row, found))


def _pace(steps: Iterator[None], device: str) -> float:
    """Seconds a step takes, from a few."""
    count = 10 if device == "cuda" else 1
    started = time.perf_counter()
    for _ in range(count):
        next(steps)
    synchronize(device)
    return (time.perf_counter() - started) / count


def training_steps(config: RunConfig, dataset: data.Dataset, device: str | torch.device) -> Iterator[None]:
    """The steps of `fit`, one for each `next()`, without evaluation or end: to be timed or profiled.

    The model is built by the first `next()`. On a GPU a step is only queued when it
    comes back, so synchronize before reading a clock.
    """
    trainer = train.Trainer(config, dataset, train.set_up(config, dataset), torch.device(device))
    trainer.model.train()
    while True:
        trainer.start_epoch()
        while trainer.step_in_epoch < trainer.steps:
            trainer.step()
            yield
        trainer.epoch += 1
        trainer.step_in_epoch = 0


def _time(steps: Iterator[None], device: str, count: int) -> dict:
    """Seconds of each of WINDOWS windows of `count` steps, and this process's CPU time for all of them."""
    windows, cpu_started = [], time.process_time()
    for _ in range(WINDOWS):
        started = time.perf_counter()
        for _ in range(count):
            next(steps)
        synchronize(device)
        windows.append(time.perf_counter() - started)
    return {"steps": count, "window_seconds": windows, "cpu_seconds": time.process_time() - cpu_started}


def time_rows(rows: list[Case], device: str, images: int, seconds: float) -> list[dict]:
    """One dict a row. Processes start once, with as many as the widest row needs, and meet at a barrier in each row."""
    context = multiprocessing.get_context("spawn")
    count = max(case.jobs for case in rows)
    barrier, results = context.Barrier(count), context.Queue()
    with tempfile.TemporaryDirectory() as cache:  # empty, so that the first compilation is a whole one
        arguments = (rows, device, images, seconds, cache, barrier, results)
        processes = [context.Process(target=_worker, args=(rank, *arguments), daemon=True) for rank in range(count)]
        for process in processes:
            process.start()
        found: list[list[dict]] = [[] for _ in rows]
        while sum(map(len, found)) < count * len(rows):
            try:
                row, part = results.get(timeout=1)
            except queue.Empty:
                if any(process.exitcode for process in processes):
                    for process in processes:
                        process.terminate()
                    raise SystemExit(
                        "throughput: a timing process ended early (see above; if killed for memory: fewer --jobs)"
                    ) from None
                continue
            found[row].append(part)
            if len(found[row]) == count:
                rich.print(f"[dim]{row + 1} of {len(rows)} rows timed[/]", file=sys.stderr)
        for process in processes:
            process.join()
    operations: dict[tuple[str, str], float] = {}
    for case in rows:
        if (case.model, case.loss) not in operations:
            operations[case.model, case.loss] = gflop_per_image(case)
    return [summarize(case, parts, operations[case.model, case.loss]) for case, parts in zip(rows, found, strict=True)]


def summarize(case: Case, parts: list[dict], gflop: float) -> dict:
    """A row of the record from what its processes found: rates add up over the processes."""
    row = dataclasses.asdict(case) | {"gflop_per_image": round(gflop, 4)}
    matrix = next(part["matrix_product_tflops"] for part in parts if "matrix_product_tflops" in part)
    row["matrix_product_tflops"] = [round(value, 4) for value in matrix]
    if errors := [part["error"] for part in parts if "error" in part]:
        return row | {"error": errors[0]}
    timed = [part for part in parts if "steps" in part]
    by_window = [
        sum(case.batch * part["steps"] / part["window_seconds"][window] for part in timed) for window in range(WINDOWS)
    ]
    rate = sum(WINDOWS * case.batch * part["steps"] / sum(part["window_seconds"]) for part in timed)
    row |= rates(rate, by_window, gflop, statistics.fmean(matrix))
    row["steps"] = [WINDOWS * part["steps"] for part in timed]
    cpu_seconds = sum(part["cpu_seconds"] for part in timed)
    row["cpu_milliseconds_per_image"] = round(1e3 * cpu_seconds / (case.batch * sum(row["steps"])), 4)
    row["first_step_seconds"] = round(max(part["first_step_seconds"] for part in timed), 3)
    if "memory_gib" in timed[0]:
        row["memory_gib"] = round(sum(part["memory_gib"] for part in timed), 2)
    return row


def rates(images_per_second: float, by_window: list[float], gflop: float, matrix_tflops: float) -> dict:
    tflops = images_per_second * gflop / 1e3
    return {
        "images_per_second": round(images_per_second, 1),
        "lowest_and_highest_window": [round(min(by_window), 1), round(max(by_window), 1)],
        "tflops": round(tflops, 4),
        "fraction_of_matrix_product": round(tflops / matrix_tflops, 4),
    }


def time_reference(checkout: Path, case: Case, device: str, images: int, seconds: float) -> dict:
    """The same work in a checkout of shengliu66/ELR, by benchmarks/reference.py in a process of its own."""
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch) / "timed.json"
        arguments = dict(
            checkout=str(checkout.resolve()), model=case.model, batch=case.batch, images=images, device=device,
            seconds=seconds, threads=case.threads, output=str(output),
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, str(HERE / "reference.py"), json.dumps(arguments)],
            env=environment, cwd=scratch, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"model": case.model, "threads": case.threads, "error": f"the reference did not run: {reason}"}
        timed = json.loads(output.read_text())
    gflop = gflop_per_image(case)
    by_window = [case.batch / duration for duration in timed["step_seconds"]]
    rate = len(by_window) / sum(1 / value for value in by_window)
    return {
        "model": case.model, "network": timed["network"], "loss": "elr", "precision": "float32", "batch": case.batch,
        "threads": case.threads, "loader_workers": timed["loader_workers"], "steps": len(by_window),
        "cpu_milliseconds_per_image": round(1e3 * timed["cpu_seconds"] / (case.batch * len(by_window)), 4),
        "matrix_product_tflops": [round(value, 4) for value in timed["matrix_product_tflops"]],
        **rates(rate, by_window, gflop, statistics.fmean(timed["matrix_product_tflops"])),
    }  # fmt: skip


def compare(rows: list[dict], references: list[dict]) -> list[dict]:
    """Our images/s over the reference's for the same net, batch and loss; and the reference's CPU time for an image
    over ours, which other work on a shared machine disturbs less (the reference's loader processes are left out)."""
    ratios = []
    for row, reference in itertools.product(rows, references):
        same = row["model"] == reference["model"] and row["loss"] == "elr" and row["jobs"] == 1
        if not same or "error" in row or "error" in reference:
            continue
        ratios.append(
            {
                "model": row["model"],
                "precision": row["precision"],
                "ratio": round(row["images_per_second"] / reference["images_per_second"], 2),
                "ratio_of_cpu_time": round(
                    reference["cpu_milliseconds_per_image"] / row["cpu_milliseconds_per_image"], 2
                ),
            }
        )
    return ratios


def revision(checkout: Path) -> str | None:
    done = subprocess.run(["git", "-C", checkout, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def driver() -> str | None:
    try:
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def show(record: dict) -> None:
    console = Console(width=None if sys.stdout.isatty() else 110)
    table = Table(title=f"Training step on {record['device']['name']}, batch {record['settings']['batch']}")
    table.add_column("step", no_wrap=True)
    for name in ("jobs x threads", "images/s", "windows", "TFLOP/s", "of matrix product", "first step"):
        table.add_column(name, justify="right")
    reference = record["reference"] or {"rows": [], "ratios": []}
    for row in record["rows"]:
        name = f"{row['model']} {row['loss']} {row['precision']}"
        table.add_row(name, f"{row['jobs']} x {row['threads']}", *_figures(row))
    for row in reference["rows"]:
        table.add_row(f"{row['model']} elr float32, reference", f"1 x {row['threads']}", *_figures(row), style="dim")
    console.print(table)
    load, cores = record["load_average_before"][0], os.cpu_count() or 1
    if record["device"]["type"] == "cpu" and load > cores / 2:
        console.print(f"The machine was busy before (load {load} on {cores} cores): these figures are not its own.")
    for ratio in reference["ratios"]:
        console.print(
            f"{ratio['model']} {ratio['precision']}: {ratio['ratio']} times the "
            f"reference in float32; by CPU time {ratio['ratio_of_cpu_time']} times"
        )


def _figures(row: dict) -> list[str]:
    if "error" in row:
        return [row["error"][:60], "", "", "", ""]
    low, high = row["lowest_and_highest_window"]
    return [
        f"{row['images_per_second']:,.0f}",
        f"{low:,.0f} to {high:,.0f}",
        f"{row['tflops']:.3f}",
        f"{100 * row['fraction_of_matrix_product']:.1f} %",
        f"{row['first_step_seconds']:.1f} s" if "first_step_seconds" in row else "",
    ]


def main(options: Options) -> None:
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.reference and not any((options.reference / part).is_dir() for part in ("trainer", "ELR/trainer")):
        raise SystemExit(
            f"--reference {options.reference}: holds no trainer folder; allowed is a clone of shengliu66/ELR"
        )
    if options.batch > options.images:
        raise SystemExit(f"--images {options.images}: fewer than one batch of {options.batch}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    seconds = options.seconds or (6.0 if device == "cuda" else 3.0)
    rows = cases(options, device, cores)
    record = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": train.describe_device(torch.device(device)) | ({"driver": driver()} if device == "cuda" else {}),
        "versions": train.versions(),
        "settings": {"batch": options.batch, "images": options.images, "seconds": seconds, "augmentation": "fresh"},
        "load_average_before": [round(value, 2) for value in os.getloadavg()],
    }
    record["rows"] = time_rows(rows, device, options.images, seconds)
    record["reference"] = None
    if options.reference:
        compared = {case.model: case for case in rows if case.loss == "elr" and case.jobs == 1}
        timed = [time_reference(options.reference, case, device, options.images, seconds) for case in compared.values()]
        ratios = compare(record["rows"], timed)
        record["reference"] = {
            "repository": "shengliu66/ELR", "commit": revision(options.reference), "rows": timed, "ratios": ratios
        }  # fmt: skip
    show(record)
    slug = re.sub(r"[^a-z0-9]+", "-", record["device"]["name"].lower()).strip("-")
    if device == "cpu":
        slug = f"cpu-{slug}-{cores}-cores"
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"throughput-{slug}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    rich.print(f"written: {path}")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))

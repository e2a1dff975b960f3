"""Work on Ray Core: a cluster of two nodes, one of which is lost midway, ends with the same bytes as this process."""

import contextlib
import importlib.util
import os
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from shops import Shop, good
from small_dataset import comparable

from elrkit import records, runner, scale, train
from elrkit.catalogue import draw
from elrkit.catalogue import features as f
from elrkit.catalogue.rules import FeedRules
from elrkit.config import ConfigError, RunConfig

if importlib.util.find_spec("ray") is None:  # not imported here: Ray reads its settings from the environment when it is
    pytest.skip("Ray is not installed (extra `scale`)", allow_module_level=True)
# Of Ray's own making: it leaves sockets and files to the garbage collector, and warns of its own future defaults.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")


NODE = dict(num_cpus=1, object_store_memory=100 * 2**20)


@pytest.fixture(scope="module")
def head():
    """A cluster of one node with one core."""
    with (
        pytest.MonkeyPatch.context() as patched,
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,  # sockets need short paths
    ):
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("RAY_AUTH_MODE", "token")
        patched.setenv("RAY_AUTH_TOKEN", "a token that both nodes and the driver know")
        patched.setenv("RAY_worker_niceness", "0")  # else other work on the machine starves the workers (15)
        patched.setenv("RAY_TMPDIR", folder)
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def cluster(head):
    """Two nodes with one core each; (cluster, the second node)."""
    import ray

    second = head.add_node(**NODE)
    try:
        yield head, second
    finally:
        ray.shutdown()
        if second in head.worker_nodes:
            head.remove_node(second)


def plan(count: int, epochs: int) -> list[RunConfig]:
    losses, small = ("ce", "elr"), dict(noise_rate=0.2, train_size=500, width=8)
    return [RunConfig(loss=losses[i % 2], epochs=epochs, seed=i // 2, **small) for i in range(count)]


def lose(cluster, node) -> None:
    """End a node as a power cut would: its processes together, without a word to the others."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    workers = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    cluster.remove_node(node, allow_graceful=False)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(worker), signal.SIGKILL)


def test_a_lost_node_loses_no_run(cluster):
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cluster, second = cluster
    configs = plan(4, epochs=10)
    with pytest.raises(ConfigError, match="threads=2, gpus_per_run=0: larger than every node"):
        runner.train_missing(configs, cluster=scale.Cluster(cluster.address), threads=2)
    assert not ray.is_initialized()

    # Both nodes have a process with torch in it before the first run begins, so that the runs do overlap.
    ray.init(address=cluster.address, logging_level="warning", log_to_driver=False)
    warm_up = ray.remote(scale._train)  # with a deadline in the past
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in ray.nodes()]
    tasks = [
        warm_up.options(scheduling_strategy=strategy).remote(configs[0], {}, 1, 0.0, {}) for strategy in strategies
    ]
    assert [ended.kind for ended in ray.get(tasks)] == ["stopped"] * 2
    lost = []

    def lose_a_node() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            under_way = [
                c for c in configs if (records.state_dir(c) / "checkpoint.pt").exists() and not records.find(c)
            ]
            if len(under_way) == 2:  # one on each node, which have a core each
                lose(cluster, second)
                lost.extend(under_way)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    events = []
    missing = runner.train_missing(configs, cluster=scale.Cluster(), on_event=events.append, checkpoint_seconds=0.1)
    killer.join()
    ray.shutdown()
    assert len(lost) == 2
    assert missing == []
    assert sorted(e.config.run_id for e in events if e.kind == "finished") == sorted(c.run_id for c in configs)
    assert not any((records.state_dir(c) / "checkpoint.pt").exists() for c in configs)

    for config in configs:
        assert comparable(records.find(config)) == comparable(train.fit(config, device="cpu"))


def seen(folder: Path, monkeypatch, **options) -> bytes:
    """The features of 192 photos, two of which are one and one of which is none, in files of 32."""
    monkeypatch.setattr(f, "SHARD", 1)
    photos = np.random.default_rng(0).integers(0, 256, (192, 8, 8, 3), dtype=np.uint8)
    network = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten())
    eye = f.Backbone("means", network, (127.0,) * 3, (128.0,) * 3, 8)
    keys = ["0", *map(str, range(191))]
    f.features(keys[:33], photos.__getitem__, eye, folder)  # is in the store, and nobody's work any more
    read = partial(lambda lost, photo: None if (photo == lost).all() else photo, photos[100])
    return f.features(keys, read, eye, folder, where=photos.__getitem__, **options).tobytes()


def imported(folder: Path, monkeypatch, **options) -> dict[str, bytes]:
    """The arrays of an import of ten products whose pictures are decoded two at a time."""
    monkeypatch.setattr(draw, "CHUNK", 8)
    monkeypatch.setattr(draw, "FEW", 0)
    folder.mkdir()
    shop = Shop(folder)
    shop.put("3.jpg", "no picture")
    shop.run(good(10), rules=FeedRules(test_share=0.5), **options)
    return {file.name: file.read_bytes() for file in shop.out.glob("*.npy")}


@pytest.mark.parametrize("work", [seen, imported])
def test_a_lost_node_costs_no_part_that_had_ended(work, cluster, tmp_path, monkeypatch):
    """Of five parts two end, then one is under way on each node when one is lost: its part alone is done again."""
    cluster, second = cluster
    begun, on_cluster = tmp_path / "begun", scale.Cluster.map
    begun.mkdir()

    def watched(function, numbered):
        number, part = numbered
        with (begun / str(number)).open("a") as file:
            file.write("x")
        while number > 1 and not (begun / "lost").exists():
            time.sleep(0.02)
        return function(part)

    def lose_a_node() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and len(list(begun.iterdir())) < 4:
            time.sleep(0.02)
        lose(cluster, second)
        (begun / "lost").touch()

    def watching(self, function, parts):
        return on_cluster(self, partial(watched, function), enumerate(parts))

    monkeypatch.setattr(scale.Cluster, "map", watching)
    (killer := threading.Thread(target=lose_a_node)).start()
    found = work(tmp_path / "a", monkeypatch, cluster=scale.Cluster(cluster.address))
    killer.join()
    assert sorted(len((begun / str(k)).read_text()) for k in range(5)) == [1, 1, 1, 1, 2]
    assert {(begun / str(k)).read_text() for k in (0, 1)} == {"x"}
    assert found == work(tmp_path / "b", monkeypatch)


def test_a_part_that_fails_says_why(head, monkeypatch):
    monkeypatch.setattr(scale, "RETRIES", 0)
    there = scale.Cluster(head.address)
    for function, error, message in (
        (lambda part: 1 // part, ZeroDivisionError, "by zero"),
        (lambda part: part or os._exit(1), ConnectionError, "^ray: a part of the work was lost"),
    ):
        with pytest.raises(error, match=message):
            list(there.map(function, [1, 1, 0]))


def test_nothing_missing_starts_nothing(monkeypatch):
    monkeypatch.setattr(scale, "_connected", lambda address: pytest.fail("connected to Ray"))
    assert runner.train_missing([], cluster=scale.Cluster()) == []


def test_a_task_says_why_it_has_no_record():
    failed = scale._train(RunConfig(dataset="absent.npz"), {}, 1, None, {})
    assert failed.kind == "failed"
    assert "no such file" in failed.detail
    assert scale._train(plan(1, epochs=1)[0], {}, 1, time.time() - 1, {}).kind == "stopped"

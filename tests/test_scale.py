"""Runs on Ray Core: a cluster of two nodes, one of which is lost midway, ends with the same records as this process."""

import importlib.util
import itertools
import tempfile
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from elrkit import runs, scale, train
from elrkit.config import ConfigError, RunConfig

if importlib.util.find_spec("ray") is None:  # not imported here: Ray reads its settings from the environment when it is
    pytest.skip("Ray is not installed (extra `scale`)", allow_module_level=True)
# Of Ray's own making: it leaves sockets and files to the garbage collector, and warns of its own future defaults.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("ELRKIT_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("ELRKIT_STATE", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes with one core each; (cluster, the second node)."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a token that both nodes and the driver know")
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # sockets need short paths
        monkeypatch.setenv("RAY_TMPDIR", folder)
        settings = dict(num_cpus=1, object_store_memory=100 * 2**20)
        cluster = Cluster(initialize_head=True, head_node_args={**settings, "include_dashboard": False})
        second = cluster.add_node(**settings)
        yield cluster, second
        cluster.shutdown()


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def plan(count: int, epochs: int) -> list[RunConfig]:
    losses, small = ("ce", "elr"), dict(noise_rate=0.2, train_size=500, width=8)
    return [RunConfig(loss=losses[i % 2], epochs=epochs, seed=i // 2, **small) for i in range(count)]


def test_a_lost_node_loses_no_run(store, cluster, one_thread):
    import ray

    cluster, second = cluster
    configs = plan(4, epochs=20)
    with pytest.raises(ConfigError, match="cpus_per_run=2, gpus_per_run=0: larger than every node"):
        scale.train_missing_on_ray(configs, address=cluster.address, cpus_per_run=2)

    lost = []

    def lose_a_node() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            under_way = [c for c in configs if (runs.state_dir(c) / "checkpoint.pt").exists() and not runs.find(c)]
            if len(under_way) == 2:  # one on each node, which have a core each
                cluster.remove_node(second, allow_graceful=False)
                lost.extend(under_way)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=lose_a_node)
    killer.start()
    events = []
    missing = scale.train_missing_on_ray(
        configs, address=cluster.address, on_event=events.append, checkpoint_seconds=0.2
    )
    killer.join()
    assert len(lost) == 2
    assert missing == []
    assert sorted(e.config.run_id for e in events if e.kind == "finished") == sorted(c.run_id for c in configs)
    assert not any((runs.state_dir(c) / "checkpoint.pt").exists() for c in configs)

    for config in configs:
        assert train.comparable(runs.find(config)) == train.comparable(train.fit(config, device="cpu"))
    assert not ray.is_initialized()


def test_nothing_missing_starts_nothing(store, monkeypatch):
    monkeypatch.setattr(scale, "_connected", lambda address: pytest.fail("connected to Ray"))
    assert scale.train_missing_on_ray([]) == []


def test_a_task_says_why_it_has_no_record(store, one_thread):
    absent = RunConfig(dataset="absent.npz").to_json()
    kind, reason = scale._train(absent, {}, 1, None, {})
    assert kind == "failed"
    assert "no such file" in reason
    assert scale._train(plan(1, epochs=1)[0].to_json(), {}, 1, time.time() - 1, {}) == ("stopped", None)


def test_a_stopped_task_goes_on_from_its_checkpoint(store, monkeypatch, one_thread):
    config = plan(1, epochs=3)[0]
    whole = train.fit(config, device="cpu")
    clock = itertools.count()  # one tick each time it is read, which is once a step of 24
    with monkeypatch.context() as patched:
        patched.setattr(scale, "time", SimpleNamespace(time=lambda: next(clock), monotonic=time.monotonic))
        assert scale._train(config.to_json(), {}, 1, 12, {"device": "cpu"}) == ("stopped", None)
    assert (runs.state_dir(config) / "checkpoint.pt").exists()
    kind, record = scale._train(config.to_json(), {}, 1, None, {"device": "cpu"})
    assert kind == "record"
    assert train.comparable(record) == train.comparable(whole)

"""Memory of the learner, of the hosts and of Ray's object store, while many chunks pass through them."""

import functools
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.contenders import create_async_ppo
from benchmarks.cluster.local_cluster import LocalCluster
from benchmarks.cluster.wide_env import WideEnv
from benchmarks.speed.measurements import Found
from benchmarks.speed.start_up import descendants
from sb3_walle.cli.throughput import leaving_nothing, stop_updates

N_CHUNKS = (1_000, 10_000)
LEARNER, STORE = "learner", "object store, at most"
# A chunk has 16 steps of 16 kB, and a version of the weights 256 kB: both are large enough that Ray puts them into its
# object store, and does not send them with its messages (which it does up to 100 kB).
N_STEPS, OBSERVATION_BYTES = 16, 16_384
NETWORK = {"net_arch": [8]}
# Ray frees objects a little later, and many at a time.
ROLLOUTS_BETWEEN_LOOKS = 5


def measure_growth(settings: ClusterSettings) -> Iterator[Found]:
    """:return: memory in MB after each of the numbers of chunks"""
    with closing(LocalCluster(n_nodes=2)) as cluster:
        for n_chunks, found in memory_by_chunks(cluster, settings.n_samplers, N_CHUNKS).items():
            for name, n_bytes in found.items():
                yield f"after {n_chunks:,} chunks, MB", name, 1e-6 * n_bytes


def memory_by_chunks(
    cluster: LocalCluster, n_samplers: int, numbers_of_chunks: tuple[int, ...]
) -> dict[int, dict[str, int]]:
    """
    Collect with a version of the weights for each rollout, which has a chunk of each sampler.

    :param cluster: where
    :param numbers_of_chunks: after how many to look
    :return: bytes, by number of chunks and name
    """
    wide = ClusterSettings("", n_samplers, n_steps=N_STEPS)
    make_env = functools.partial(WideEnv, OBSERVATION_BYTES)
    watch = WatchMemory(cluster, [-(-n_chunks // n_samplers) for n_chunks in numbers_of_chunks])
    with leaving_nothing(
        functools.partial(create_async_ppo, wide, make_env, "ray", batch_size=wide.rollout, policy_kwargs=NETWORK)
    ) as model:
        stop_updates(model)
        model.learn(watch.n_rollouts[-1] * wide.rollout, callback=watch)
    return dict(zip(numbers_of_chunks, watch.found, strict=True))


class WatchMemory(BaseCallback):
    """
    Looks at the memory after some numbers of rollouts.

    :param cluster: where samplers run
    :param n_rollouts: the numbers, which increase
    """

    def __init__(self, cluster: LocalCluster, n_rollouts: list[int]) -> None:
        super().__init__()
        self.n_rollouts = n_rollouts
        #: bytes by name, for each of the numbers
        self.found: list[dict[str, int]] = []
        self._cluster = cluster
        self._n, self._most_in_store = 0, 0

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._n += 1
        if self._n % ROLLOUTS_BETWEEN_LOOKS == 0:
            self._most_in_store = max(self._most_in_store, object_store_bytes())
        if self._n in self.n_rollouts:
            hosts = {f"host {index + 1}": self._cluster.host(index) for index in range(len(self._cluster.nodes))}
            memory = {name: private_memory({host, *descendants(host)}) for name, host in hosts.items()}
            self.found.append({LEARNER: private_memory({os.getpid()}), **memory, STORE: self._most_in_store})
            self._most_in_store = 0


def private_memory(pids: set[int]) -> int:
    """
    :return: bytes of some processes without files and shared memory, which have their size from the start; what
        forked processes have in common counts once
    """
    kibibytes = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return kibibytes * 1024


def object_store_bytes() -> int:
    """:return: bytes that are in use in the object stores of all nodes"""
    import ray

    # Ray has no public function for it.
    from ray._private.internal_api import node_stats

    nodes = [node for node in ray.nodes() if node["Alive"]]
    stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats for node in nodes]
    return sum(each.object_store_bytes_used for each in stats)

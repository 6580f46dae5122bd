"""RLlib's PPO (https://docs.ray.io/en/latest/rllib), as a contender."""

import time
from typing import Any

from benchmarks.cluster.cluster_settings import ClusterSettings
from benchmarks.cluster.contenders import MakeEnv
from sb3_walle.cli.arguments import UsageError

RLLIB = "PPO of RLlib"
ENV = "sb3_walle_benchmark"
# As in SB3, and so in AsyncPPO.
BATCH_SIZE, N_EPOCHS = 64, 10


def check_rllib() -> None:
    """
    :raises UsageError: if RLlib's packages are not installed
    """
    try:
        import ray.rllib.algorithms.ppo  # noqa: F401
    except ImportError as error:
        raise UsageError('--rllib needs packages that are not installed: pip install "ray[rllib]"') from error


class RLlibPPO:
    """
    RLlib's PPO with SB3's hyperparameters and network, as many runners of one environment as there are samplers, and
    its learner in this process. This process is connected to a cluster.

    :param make_env: builds an environment
    """

    def __init__(self, settings: ClusterSettings, make_env: MakeEnv) -> None:
        from ray.rllib.algorithms.ppo import PPOConfig
        from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
        from ray.tune import register_env

        register_env(ENV, lambda _: make_env())
        config: Any = PPOConfig().environment(ENV)
        # Runners share this machine's CPUs, as samplers do.
        config = config.env_runners(num_env_runners=settings.n_samplers, num_cpus_per_env_runner=0)
        config = config.learners(num_learners=0, num_gpus_per_learner=0)
        config = config.training(
            train_batch_size_per_learner=settings.rollout,
            minibatch_size=BATCH_SIZE,
            num_epochs=N_EPOCHS,
            lr=3e-4,
            gamma=0.99,
            lambda_=0.95,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            vf_clip_param=float("inf"),
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        network = DefaultModelConfig(
            fcnet_hiddens=[64, 64], fcnet_activation="tanh", vf_share_layers=False, free_log_std=True
        )
        self._algorithm = config.rl_module(model_config=network).debugging(log_level="ERROR").build_algo()
        self._rollout = settings.rollout

    def collection_rate(self, n_rollouts: int) -> float:
        """
        Collect as RLlib's own training step does.

        :param n_rollouts: how often
        :return: environment steps per second
        """
        from ray.rllib.execution.rollout_ops import synchronous_parallel_sample

        sample: Any = synchronous_parallel_sample

        def collect() -> int:
            episodes, _ = sample(
                worker_set=self._algorithm.env_runner_group,
                max_env_steps=self._rollout,
                _uses_new_env_runners=True,
                _return_metrics=True,
            )
            return sum(map(len, episodes))

        collect()
        start = time.perf_counter()
        n_steps = sum(collect() for _ in range(n_rollouts))
        return n_steps / (time.perf_counter() - start)

    def training_rate(self, n_iterations: int) -> float:
        """
        :param n_iterations: how many to measure, after a first one
        :return: environment steps per second
        """

        def train() -> float:
            return float(self._algorithm.train()["num_env_steps_sampled_lifetime"])

        before = train()
        start = time.perf_counter()
        for _ in range(n_iterations):
            after = train()
        return (after - before) / (time.perf_counter() - start)

    def close(self) -> None:
        """End its runners."""
        self._algorithm.stop()

"""Every policy that SB3's PPO takes, with what its ``policy_kwargs`` allow."""

import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from custom_policy import CustomPolicy
from gymnasium import spaces
from oracle import TINY, Recorder, assert_same_training, assert_trains_pipelined, flat
from space_env import SpaceEnv
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.utils import obs_as_tensor
from torch import nn

from sb3_walle import AsyncPPO
from sb3_walle.samplers.actors.choice import choose_actor

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
BOX = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([5.0, 0.75], np.float32))
TASK = partial(SpaceEnv, VECTOR, BOX)
DISCRETE_TASK = partial(SpaceEnv, VECTOR, spaces.Discrete(3))
FLOAT_IMAGE_TASK = partial(SpaceEnv, spaces.Box(0.0, 1.0, (3, 36, 36), np.float32), spaces.Discrete(3))
BYTE_IMAGE_TASK = partial(SpaceEnv, spaces.Box(0, 255, (3, 36, 36), np.uint8), spaces.Discrete(3))


class LinearExtractor(BaseFeaturesExtractor):
    """
    A features extractor of a user's own.

    :param observation_space: the observations
    :param features_dim: number of features
    :param layer: what follows the linear layer
    """

    def __init__(
        self, observation_space: spaces.Box, features_dim: int = 5, layer: type[nn.Module] = nn.Identity, **kwargs: Any
    ) -> None:
        super().__init__(observation_space, features_dim)
        size = int(np.prod(observation_space.shape))
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(size, features_dim), layer(**kwargs))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.network(observations)


class CosineActivation(nn.Module):
    """An activation function of a user's own."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.cos(x)


# What to pass as policy_kwargs, and the actor that "auto" should choose.
POLICY_KWARGS: dict[str, tuple[dict[str, Any], str]] = {
    "net_arch, list, and SGD": (
        {"net_arch": [8, 4], "optimizer_class": th.optim.SGD, "optimizer_kwargs": {"momentum": 0.9}},
        "numpy",
    ),
    "net_arch, dict, and RMSprop": (
        {
            "net_arch": {"pi": [8], "vf": [4, 4]},
            "optimizer_class": th.optim.RMSprop,
            "optimizer_kwargs": {"alpha": 0.9, "eps": 1e-5},
        },
        "numpy",
    ),
    "net_arch, dict of nothing": ({"net_arch": {"pi": [], "vf": []}}, "numpy"),
    "net_arch, nothing": ({"net_arch": []}, "numpy"),
    "net_arch, no value net, and ReLU": ({"net_arch": {"pi": [8]}, "activation_fn": nn.ReLU}, "numpy"),
    "ELU and log_std_init": ({"activation_fn": nn.ELU, "log_std_init": -1.5}, "numpy"),
    "GELU and share_features_extractor": (
        {"activation_fn": nn.GELU, "share_features_extractor": False},
        "numpy",
    ),
    "activation_fn, PReLU": ({"activation_fn": nn.PReLU}, "torch"),
    "activation_fn, custom": ({"activation_fn": CosineActivation}, "torch"),
    "ortho_init and AdamW": (
        {"ortho_init": False, "optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 0.1}},
        "numpy",
    ),
    "features_extractor_class": (
        {
            "features_extractor_class": LinearExtractor,
            "features_extractor_kwargs": {"features_dim": 7, "layer": nn.Softplus, "beta": 2.0},
        },
        "torch",
    ),
    "features_extractor_class, SB3's": ({"features_extractor_class": FlattenExtractor}, "numpy"),
    "share_features_extractor, custom": (
        {"share_features_extractor": False, "features_extractor_class": LinearExtractor},
        "torch",
    ),
}


@pytest.mark.parametrize("name", POLICY_KWARGS)
def test_policy_kwargs(name: str) -> None:
    kwargs, actor = POLICY_KWARGS[name]
    assert_same_training("MlpPolicy", TASK, policy_kwargs=kwargs)
    model = assert_trains_pipelined("MlpPolicy", TASK, policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == actor


@pytest.mark.parametrize("task", [TASK, DISCRETE_TASK], ids=["continuous", "discrete"])
def test_policy_classes_of_ones_own(task: Any) -> None:
    assert_same_training(CustomPolicy, task)
    model = assert_trains_pipelined(CustomPolicy, task)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


@pytest.mark.parametrize(
    ("task", "normalize_images"),
    [(FLOAT_IMAGE_TASK, False), (BYTE_IMAGE_TASK, True), (BYTE_IMAGE_TASK, False)],
    ids=["normalized before", "normalized", "not normalized"],
)
def test_images_for_an_mlp(task: Any, normalize_images: bool) -> None:
    kwargs = {"normalize_images": normalize_images, "net_arch": [4]}
    assert_same_training("MlpPolicy", task, policy_kwargs=kwargs)
    assert_trains_pipelined("MlpPolicy", task, policy_kwargs=kwargs)


def test_images_that_were_normalized_before() -> None:
    kwargs = {
        "normalize_images": False,
        "features_extractor_kwargs": {"normalized_image": True, "features_dim": 8},
        "share_features_extractor": False,
    }
    assert_same_training("CnnPolicy", FLOAT_IMAGE_TASK, policy_kwargs=kwargs)
    model = assert_trains_pipelined("CnnPolicy", FLOAT_IMAGE_TASK, policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


@pytest.mark.parametrize(
    ("sde_sample_freq", "kwargs"),
    [
        (-1, {}),
        (4, {"squash_output": True}),
        (4, {"squash_output": True, "use_expln": True, "full_std": False, "log_std_init": -2.0}),
        (-1, {"full_std": False, "net_arch": []}),
    ],
    ids=["default", "squash_output", "use_expln and not full_std", "not full_std"],
)
def test_state_dependent_exploration(sde_sample_freq: int, kwargs: dict[str, Any]) -> None:
    settings = {"use_sde": True, "sde_sample_freq": sde_sample_freq, "policy_kwargs": kwargs}
    assert_same_training("MlpPolicy", TASK, **settings)
    model = assert_trains_pipelined("MlpPolicy", TASK, **settings)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


# What is in training as it is not in collection


def test_dropout() -> None:
    kwargs = {
        "features_extractor_class": LinearExtractor,
        "features_extractor_kwargs": {"layer": nn.Dropout, "p": 0.5},
    }
    assert_same_training("MlpPolicy", TASK, policy_kwargs=kwargs)
    model = assert_trains_pipelined("MlpPolicy", TASK, policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


BATCH_NORM = {
    "features_extractor_class": LinearExtractor,
    "features_extractor_kwargs": {"layer": nn.BatchNorm1d, "num_features": 5},
}


@pytest.mark.parametrize("share_features_extractor", [True, False])
def test_batch_normalization(share_features_extractor: bool) -> None:
    kwargs = {**BATCH_NORM, "share_features_extractor": share_features_extractor}
    assert_same_training("MlpPolicy", TASK, policy_kwargs=kwargs)
    model = assert_trains_pipelined("MlpPolicy", TASK, policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


class RunningStatistics(Recorder):
    """Keeps for each rollout, too, what the policy, with its statistics at that time, says of its values."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[np.ndarray] = []
        self.means: list[np.ndarray] = []

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        policy = self.model.policy
        with th.no_grad():
            values = policy.predict_values(obs_as_tensor(flat(self.buffers[-1]["observations"]), policy.device))
        self.values.append(values.numpy().flatten())
        self.means.append(policy.state_dict()["features_extractor.network.2.running_mean"].numpy().copy())


def test_running_statistics_of_batch_normalization_reach_samplers_in_other_processes() -> None:
    # Only the statistics change from one version to the next.
    settings = {**TINY, "learning_rate": 0.0, "policy_kwargs": BATCH_NORM}
    model = AsyncPPO("MlpPolicy", TASK, n_samplers=2, mode="sync", backend="process", **settings)
    recorder = RunningStatistics()
    model.learn(3 * model.n_steps * model.n_envs, callback=recorder)
    for arrays, values in zip(recorder.buffers, recorder.values, strict=True):
        np.testing.assert_allclose(flat(arrays["values"]), values, 1e-4, 1e-5)
    assert np.abs(np.diff(recorder.means, axis=0)).max(axis=1).min() > 1e-2
    model.get_env().close()


# What cannot simply be pickled, or is no tensor


class SpectralPolicy(ActorCriticPolicy):
    """PyTorch pickles no parametrized modules."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        nn.utils.parametrizations.spectral_norm(self.mlp_extractor.policy_net[0])


class LockedExtractor(LinearExtractor):
    """Nothing pickles a lock."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.lock = threading.Lock()


class NotedLinear(nn.Linear):
    """Its ``state_dict()`` has an entry that is no tensor."""

    def get_extra_state(self) -> dict[str, str]:
        return {"note": "made for a test"}

    def set_extra_state(self, state: dict[str, str]) -> None:
        assert state == self.get_extra_state()


class NotedExtractor(LinearExtractor):
    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.network[1] = NotedLinear(3, self.features_dim)


@pytest.mark.parametrize(
    ("policy", "kwargs"),
    [
        (SpectralPolicy, {}),
        ("MlpPolicy", {"features_extractor_class": LockedExtractor, "share_features_extractor": False}),
        ("MlpPolicy", {"features_extractor_class": NotedExtractor}),
    ],
    ids=["parametrization", "lock", "extra state"],
)
def test_policies_that_are_hard_to_move(policy: Any, kwargs: dict[str, Any]) -> None:
    assert_same_training(policy, TASK, policy_kwargs=kwargs)
    model = assert_trains_pipelined(policy, TASK, policy_kwargs=kwargs)
    assert choose_actor(model.sampler_actor, model.policy) == "torch"


@pytest.mark.parametrize(
    ("make_unlike", "reason"),
    [
        (lambda policy: policy.add_module("another", nn.Linear(2, 2)), "ValueError: other weights: another.bias"),
        (lambda policy: setattr(policy, "features_extractor_kwargs", {"size": 3}), "TypeError: .*'size'"),
    ],
    ids=["changed", "cannot be built"],
)
def test_a_policy_that_cannot_be_moved_is_refused(make_unlike: Any, reason: str) -> None:
    kwargs = {"features_extractor_class": LockedExtractor}
    model = AsyncPPO("MlpPolicy", TASK, n_samplers=2, backend="inline", policy_kwargs=kwargs, **TINY)
    make_unlike(model.policy)
    with pytest.raises(TypeError, match=rf"cannot be moved to samplers.*cannot pickle '_thread.lock'.*{reason}"):
        model.learn(1)


# What is defined in a user's main module, without a guard

SCRIPT = """
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_walle import AsyncPPO

th.set_num_threads(1)


class Extractor(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim):
        super().__init__(observation_space, features_dim)
        self.layer = nn.Linear(observation_space.shape[0], features_dim)

    def forward(self, observations):
        return self.layer(observations)


class Cosine(nn.Module):
    def forward(self, x):
        return th.cos(x)


class Policy(ActorCriticPolicy):
    def extract_features(self, obs, features_extractor=None):
        return 0.5 * super().extract_features(obs, features_extractor)


settings = dict(
    n_steps=32, batch_size=16, n_epochs=1, seed=3, device="cpu",
    policy_kwargs=dict(
        features_extractor_class=Extractor, features_extractor_kwargs=dict(features_dim=5), activation_fn=Cosine
    ),
)
oracle = PPO(Policy, make_vec_env("CartPole-v1", 2), **settings).learn(128)
model = AsyncPPO(
    Policy, "CartPole-v1", n_samplers=1, envs_per_sampler=2, mode="sync", backend="process", **settings
).learn(128)
found = model.policy.state_dict()
print("equal:", all(th.equal(tensor, found[name]) for name, tensor in oracle.policy.state_dict().items()))
"""


def test_policies_that_are_defined_in_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "equal: True"

"""The trust region and the number of steps follow how training gets on, by the published rules."""

from pathlib import Path
from typing import Any

import pytest
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from toy_envs import RandomWalk, StampedEnv

from sb3_walle import AdaptiveTrustRegion, AsyncPPO

SETTINGS: dict[str, Any] = {
    "n_samplers": 2,
    "backend": "inline",
    "mode": "sync",
    "learner": "eager",
    "n_epochs": 1,
    "policy_kwargs": {"net_arch": [4]},
    "device": "cpu",
    "seed": 0,
}


class Reward(StampedEnv):
    """Gives the reward that was set."""

    reward = 0.0

    def step(self, action: int) -> Any:
        observation, _, *rest = super().step(action)
        return observation, self.reward, *rest

    def set_reward(self, reward: float) -> None:
        self.reward = reward


class Rewards(BaseCallback):
    """Sets the reward of each iteration, and keeps what the trust region and the steps were in it."""

    def __init__(self, rewards: list[float]) -> None:
        super().__init__()
        self.rewards = iter(rewards)
        self.seen: list[tuple[float, int]] = []

    def _on_rollout_start(self) -> None:
        self.training_env.env_method("set_reward", next(self.rewards, 0.0))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.seen.append((self.model.target_kl, self.model.target_steps))


def made(rewards: list[float], target_kl: float = 0.002, target_steps: int = 35, **adaptive: Any) -> Any:
    """A model that has trained with these rewards, one for each iteration, and what was seen of it."""
    settings = {"rollout": "episodes", "target_steps": target_steps, "target_kl": target_kl, "max_episode_steps": 8}
    model, follow = AsyncPPO("MlpPolicy", Reward, **settings, **SETTINGS), Rewards(rewards)
    adaptive = {"every": 2, "steps_bounds": (14, 70), "steps_increment": 21, **adaptive}
    model.learn(10**9, callback=[AdaptiveTrustRegion(**adaptive), follow, Stop(len(rewards))])
    return model, follow.seen


class Stop(BaseCallback):
    """Ends training after so many iterations, in the first step of the next."""

    def __init__(self, n_iterations: int) -> None:
        super().__init__()
        self.n_left = n_iterations

    def _on_step(self) -> bool:
        return self.n_left > 0

    def _on_rollout_end(self) -> None:
        self.n_left -= 1


def test_rules_are_those_of_the_paper() -> None:
    rewards = [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.1, -1.1, -1.1, -1.1]
    _, seen = made(rewards)
    kls, steps = zip(*seen[::2], strict=True)
    # The first comparison, with nothing, counts as an improvement; returns that stay the same do, too.
    assert kls == pytest.approx([0.002, 0.0025, 0.003, 0.0035, 0.003, 0.0025])
    assert steps == (35, 14, 14, 14, 35, 56)
    assert seen[1::2] == seen[::2]


def test_bounds_hold() -> None:
    _, seen = made([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], target_kl=0.0095, target_steps=70)
    assert [kl for kl, _ in seen[::2]] == pytest.approx([0.0095, 0.01, 0.01])
    _, seen = made([0.0, 0.0, -1.0, -1.0, -2.0, -2.0, -3.0, -3.0], target_kl=0.0012, target_steps=70)
    assert [kl for kl, _ in seen[::2]] == pytest.approx([0.0012, 0.0017, 0.0012, 0.001])
    assert [steps for _, steps in seen[::2]] == [70, 49, 70, 70]
    # What was chosen outside of them stays there rather than jumping.
    _, seen = made([0.0, 0.0, 1.0, 1.0], target_kl=0.05)
    assert {kl for kl, _ in seen} == {0.05}


def test_a_margin_has_to_be_exceeded() -> None:
    rewards = [1.0, 1.0, 1.04, 1.04]
    for margin, expected in ((0.0, 0.003), (0.05, 0.002)):
        model, _ = made(rewards, margin=margin)
        assert model.target_kl == pytest.approx(expected)
    # Of negative returns, too.
    for before, after, expected in ((-1.0, -0.97, 0.002), (-1.0, -0.9, 0.003)):
        model, _ = made([before, before, after, after], margin=0.05)
        assert model.target_kl == pytest.approx(expected)


@pytest.mark.parametrize("adapt", ["kl", "steps"])
def test_only_what_is_asked_for_changes(adapt: str) -> None:
    _, seen = made([0.0] * 4, adapt=adapt)
    assert (seen[0][0] != seen[-1][0]) == (adapt == "kl")
    assert (seen[0][1] != seen[-1][1]) == (adapt == "steps")


def test_state_survives_saving(tmp_path: Path) -> None:
    model, _ = made([0.0, 0.0, 1.0])
    model.save(tmp_path / "model")
    state = model.trust_region_state
    assert state["n_iterations"] == 1 and state["before"] == 0.0 and state["returns"] == [pytest.approx(7.0)]
    loaded = AsyncPPO.load(tmp_path / "model", env=Reward, n_samplers=2, backend="inline")
    assert loaded.trust_region_state == state
    assert (loaded.target_kl, loaded.target_steps) == (model.target_kl, model.target_steps)
    follow = Rewards([1.0, 0.0])
    loaded.learn(10**9, callback=[AdaptiveTrustRegion(every=2), follow, Stop(2)], reset_num_timesteps=False)
    # The second of two iterations was the first after loading.
    assert [kl for kl, _ in follow.seen] == pytest.approx([0.0025, 0.003])
    # SB3 loads it, too.
    assert PPO.load(tmp_path / "model").target_kl == model.target_kl


def test_other_algorithms_with_a_trust_region_and_steps() -> None:
    model = PPO("MlpPolicy", RandomWalk(), n_steps=64, target_kl=0.005, device="cpu")
    model.learn(5 * 64, callback=AdaptiveTrustRegion("kl", every=2, verbose=1))
    # Larger at first, and then it depends.
    assert min(abs(model.target_kl - expected) for expected in (0.005, 0.006)) < 1e-9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adapt": "all"}, r"adapt must be one of \('kl', 'steps', 'both'\), got 'all'"),
        ({"every": 0}, "every must be an integer of at least 1, got 0"),
        ({"every": 2.5}, r"every must be an integer of at least 1, got 2\.5"),
        ({"kl_bounds": (0.01, 0.001)}, r"kl_bounds must be two numbers above 0 in their order, got \(0\.01, 0\.001\)"),
        ({"kl_increment": -0.1}, r"kl_increment and margin must not be negative, got -0\.1 and 0\.0"),
        ({"steps_increment": -300}, "steps_increment must not be negative, got -300"),
        ({"steps_bounds": (1e3, 2e4)}, r"must be integers, got \(1000\.0, 20000\.0\) and 300"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptiveTrustRegion(**arguments)


def test_what_there_is_not_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="changes target_kl, and this A2C has none"):
        A2C("MlpPolicy", RandomWalk(), device="cpu").learn(10, callback=AdaptiveTrustRegion("kl"))
    model = AsyncPPO("MlpPolicy", RandomWalk, n_steps=64, target_kl=0.01, **SETTINGS)
    with pytest.raises(ValueError, match="changes target_steps, and this AsyncPPO has none"):
        model.learn(10, callback=AdaptiveTrustRegion("both"))


def test_what_would_count_iterations_twice_or_never_is_refused() -> None:
    """A model has the state of one callback; and SB3 tells only those that learn() is given of iterations."""
    model = AsyncPPO("MlpPolicy", RandomWalk, n_steps=64, target_kl=0.01, **SETTINGS)
    with pytest.raises(ValueError, match="given several AdaptiveTrustRegion"):
        model.learn(10, callback=[AdaptiveTrustRegion("kl"), CallbackList([AdaptiveTrustRegion("kl")])])
    with pytest.raises(ValueError, match="EveryNTimesteps does not tell it"):
        model.learn(10, callback=EveryNTimesteps(10, AdaptiveTrustRegion("kl")))

"""Mode "realtime" as a whole, where time passes only as it is told to: what a gradient step and an action cost."""

import gc
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from toy_envs import StampedEnv
from virtual_plant import SimulatedBackend, VirtualClock, VirtualPlantEnv

from sb3_walle import AsyncDDPG, AsyncDQN, AsyncPPO, AsyncSAC, AsyncTD3, AsyncTQC, SamplerVecEnv
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.errors import SamplerError

HZ = 50.0
REALTIME: dict[str, Any] = {"mode": "realtime", "fallback_action": "hold", "control_hz": HZ, "backend": "inline"}
UNPACED = {"control_hz": None, "fallback_action": 0}


def small(**arguments: Any) -> dict[str, Any]:
    """Arguments of an algorithm."""
    # SB3 adds to policy_kwargs.
    network = {"policy_kwargs": {"net_arch": [8]}, "buffer_size": 1000, "batch_size": 4, "learner": "eager", "seed": 0}
    return {**network, **REALTIME, **arguments}


class SimulatedSAC(AsyncSAC):
    """A gradient step takes as long as it is told to."""

    clock: VirtualClock
    simulation: SimulatedBackend
    gradient_step_seconds = 0.0

    def _realtime_settings(self) -> RealtimeSettings:
        return RealtimeSettings(self.fallback_action, self.control_hz, self.clock)

    def _update(self, gradient_steps: int, batch_size: int) -> None:
        assert self.simulation.samplers is not None
        self.simulation.samplers.pass_time(gradient_steps * self.gradient_step_seconds)


def simulated(env: VirtualPlantEnv, gradient_step_seconds: float, **arguments: Any) -> SimulatedSAC:
    simulation = SimulatedBackend(env.clock)

    class Simulated(SimulatedSAC):
        pass

    Simulated.clock, Simulated.simulation, Simulated.gradient_step_seconds = (
        env.clock,
        simulation,
        gradient_step_seconds,
    )
    return Simulated("MlpPolicy", env, **small(backend=simulation, **arguments))


@pytest.fixture
def env() -> VirtualPlantEnv:
    return VirtualPlantEnv(VirtualClock(), reset_seconds=0.5, episode_length=100)


def test_plant_does_not_wait_for_a_learner_that_keeps_up(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.012, learning_starts=10) as model:
        model.learn(500)
        statistics = model.realtime_statistics
        assert statistics is not None
        assert statistics.n_missed == 0 and statistics.longest_gap == 1
        ticks = np.diff([time for time, _ in env.applied]) * HZ
        assert np.allclose(ticks[ticks < 1.5], 1.0)
        # As many gradient steps as steps.
        assert model._replay_ratio.value == pytest.approx(1.0, abs=0.02)
        assert model._debt is not None and model._debt.n_made >= 480


def test_learner_that_is_too_slow_takes_all_steps_and_makes_fewer_gradient_steps(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.05, learning_starts=10) as model:
        model.learn(500)
        assert model.realtime_statistics is not None and model.realtime_statistics.n_missed == 0
        # 50 ms for a gradient step, 2.5 s for 100 steps and a reset.
        assert model._replay_ratio.value == pytest.approx(0.5, abs=0.02)
        buffer = model.replay_buffer
        assert buffer is not None and buffer.pos >= 500
        # Nothing is lost: observations count the steps of an episode.
        numbers = buffer.observations[: buffer.pos, 0, 0]
        assert (numbers == np.arange(buffer.pos) % 100).all()


def test_training_continues_during_a_reset(env: VirtualPlantEnv) -> None:
    env._reset_seconds = 10.0
    with simulated(env, 0.05, learning_starts=10, gradient_steps=2) as model:
        model.learn(500)
        # In the 2 s of an episode, there are 40 of the 200 gradient steps; the others follow during the resets.
        assert model._replay_ratio.value is not None and model._replay_ratio.value > 1.5


def test_replay_ratio_that_is_bounded_is_logged_as_it_is(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.001, learning_starts=10, gradient_steps=4, max_replay_ratio=1.5) as model:
        model.learn(200)
        assert model._replay_ratio.value == pytest.approx(1.5, abs=0.05)


def test_plant_rests_after_learn_and_begins_the_next_one_with_a_reset(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.012, learning_starts=10) as model:
        model.learn(30)
        model.get_env().get_attr("n_steps")
        n_applied, n_resets = len(env.applied), env.n_resets
        assert env.applied[-1][1] == env.applied[-2][1]
        model.learn(30, reset_num_timesteps=False)
        assert env.n_resets == n_resets + 1
        assert len(env.applied) > n_applied
    assert env.is_closed and env.applied[-1][1] == env.applied[-2][1]


class Raises(BaseCallback):
    def _on_step(self) -> bool:
        if self.n_calls == 20:
            raise ZeroDivisionError
        return True


def test_plant_gets_the_fallback_action_when_a_callback_raises(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.012, fallback_action=[0.25]) as model:
        with pytest.raises(ZeroDivisionError):
            model.learn(100, callback=Raises())
        model.get_env().get_attr("n_steps")
        assert [action for _, action in env.applied].count(0.25) == 1
        assert env.applied[-1][1] == 0.25 and not env.is_closed


def test_full_ring_is_one_error_after_the_fallback_action_and_close(
    env: VirtualPlantEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sb3_walle.realtime.settings.RING_SECONDS", 1.0)
    monkeypatch.setattr("sb3_walle.realtime.settings.LEAST_RING_SECONDS", 0.5)
    model = simulated(env, 2.0, learning_starts=10, fallback_action=[0.25])
    with pytest.raises(SamplerError, match="has not taken any of the last 50 steps"):
        model.learn(100)
    assert env.is_closed
    assert env.applied[-1][1] == 0.25 and [action for _, action in env.applied].count(0.25) == 1


@pytest.mark.parametrize("algorithm", [AsyncSAC, AsyncTD3, AsyncDDPG, AsyncTQC, AsyncDQN])
def test_every_off_policy_algorithm_learns(algorithm: Any) -> None:
    env = "CartPole-v1" if algorithm is AsyncDQN else "Pendulum-v1"
    fallback_action = 0 if algorithm is AsyncDQN else "hold"
    arguments = {**UNPACED, "fallback_action": fallback_action, "learning_starts": 8, "train_freq": 2}
    with algorithm("MlpPolicy", env, normalize=True, **small(**arguments)) as model:
        model.learn(40)
        assert model._n_updates >= 14 and model.n_envs == 1
        assert model.realtime_statistics.n_steps >= 40
        assert model.replay_buffer.pos >= 40


def test_steps_of_several_plants_are_put_together() -> None:
    with AsyncDQN("MlpPolicy", StampedEnv, n_samplers=3, **small(**UNPACED)) as model:
        model.learn(90)
        assert model.n_envs == 3
        buffer = model.replay_buffer
        assert buffer is not None
        steps = buffer.observations[: buffer.pos, :, 2]
        assert (steps == (np.arange(len(steps)) % 7)[:, None]).all()


def test_episodic_training() -> None:
    arguments = {"train_freq": (1, "episode"), "gradient_steps": -1, "learning_starts": 0}
    with AsyncDQN("MlpPolicy", StampedEnv, **small(**UNPACED, **arguments)) as model:
        model.learn(35)
        assert model._n_updates == 35


def test_environments_stay_with_the_plant_while_it_is_acted_on(env: VirtualPlantEnv) -> None:
    errors = []

    class Steps(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 5:
                assert self.training_env.get_attr("n_steps") is not None
                self.training_env.set_attr("marked", True)
                try:
                    self.training_env.reset()
                except RuntimeError as error:
                    errors.append(str(error))
            return True

    with simulated(env, 0.0) as model:
        model.learn(20, callback=Steps())
    assert len(errors) == 1 and "is acting on the plants" in errors[0]
    assert model.env is not None and env.n_resets == 1


def test_fallback_action_that_fails_at_the_end_is_an_error(env: VirtualPlantEnv) -> None:
    def move_back(observation: np.ndarray) -> np.ndarray:
        return np.zeros(1 if len(env.applied) < 30 else 3)

    with simulated(env, 0.0, fallback_action=move_back) as model:
        model.learn(30)
        with pytest.raises(SamplerError, match="has returned array"):
            model.get_env().get_attr("n_steps")
        assert env.is_closed and len(env.applied) == 30


# What is refused


@pytest.fixture
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fallback_action": None}, "fallback_action must be"),
        ({"fallback_action": [3.0]}, "is no action of"),
        ({"mode": "free"}, "control_hz has a meaning with mode='realtime' only"),
        ({"mode": "free", "control_hz": None}, "fallback_action has a meaning with"),
        ({"control_hz": -1.0}, "control_hz must be a number above 0"),
        ({"max_replay_ratio": 0}, "max_replay_ratio must be a number above 0"),
        ({"envs_per_sampler": 2}, "each sampler acts on one plant"),
        ({"n_samplers": "auto"}, "Pass the number of plants"),
        ({"samplers_give_way": True}, "the learner gives way"),
        ({"max_policy_lag": 2}, "max_policy_lag=2"),
        ({"control_hz": np.float32(np.inf)}, "control_hz must be a number above 0"),
        ({"backend": "ray"}, "backend='ray' cannot act in real time"),
        ({"mode": "real-time"}, "mode must be one of .*'realtime'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str, _no_warnings: None) -> None:
    with pytest.raises(ValueError, match=message):
        AsyncSAC("MlpPolicy", "Pendulum-v1", **small(**arguments))


def test_memory_that_does_not_suffice_is_an_error_with_a_remedy() -> None:
    with pytest.raises(MemoryError, match=r"10000000000 steps that wait for the learner.*lower control_hz"):
        AsyncSAC("MlpPolicy", "Pendulum-v1", **small(control_hz=1e9))


def test_on_policy_algorithms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"AsyncPPO cannot learn in mode='realtime'.*AsyncSAC"):
        AsyncPPO("MlpPolicy", "Pendulum-v1", mode="realtime")


def test_samplers_of_several_environments_are_refused() -> None:
    samplers = SamplerVecEnv([lambda: gym.make("Pendulum-v1")] * 2, envs_per_sampler=2, backend="inline")
    with samplers, pytest.raises(ValueError, match="each sampler acts on one plant"):
        AsyncSAC("MlpPolicy", samplers, **small())


def test_vectorized_environments_are_refused() -> None:
    def build(n_envs: int) -> gym.vector.VectorEnv:
        return gym.make_vec("Pendulum-v1", n_envs)

    with pytest.raises(ValueError, match="acts on single environments, and this one is vectorised"):
        AsyncSAC("MlpPolicy", build, **small())


def test_samplers_that_would_be_restarted_are_refused_unless_the_user_says_so() -> None:
    samplers = SamplerVecEnv([lambda: gym.make("Pendulum-v1")], backend="inline")
    with samplers, pytest.raises(ValueError, match=r"not started for mode='realtime'.*on_failure='raise'"):
        AsyncSAC("MlpPolicy", samplers, **small())
    plants = SamplerVecEnv(
        [lambda: gym.make("Pendulum-v1")], backend="inline", on_failure="restart", samplers_give_way=False
    )
    with AsyncSAC("MlpPolicy", plants, **small()) as model:
        model.learn(5)


def test_evaluation_on_the_same_plant_is_refused(env: VirtualPlantEnv) -> None:
    with simulated(env, 0.0) as model:
        with pytest.raises(ValueError, match="there is only one of it"):
            model.learn(10, callback=[EvalCallback(model.get_env())])
        assert env.applied == []


def test_plants_are_counted_as_such_and_a_failure_is_an_error(tmp_path: Any) -> None:
    def is_for_plants(model: Any) -> bool:
        samplers = model.env.unwrapped
        supervision = samplers.client.supervision
        return (samplers.num_envs, supervision.on_failure, supervision.samplers_give_way) == (1, "raise", False)

    with AsyncSAC("MlpPolicy", "Pendulum-v1", **small(control_hz=np.int64(50))) as model:
        assert is_for_plants(model)
        model.save(tmp_path / "model")
    with AsyncSAC.load(tmp_path / "model", "Pendulum-v1", backend="inline") as loaded:
        assert (loaded.mode, loaded.control_hz, loaded.fallback_action) == ("realtime", 50, "hold")
        assert is_for_plants(loaded)
        loaded.learn(10)
    loaded = AsyncSAC.load(tmp_path / "model")
    loaded.set_env("Pendulum-v1")
    with loaded:
        assert is_for_plants(loaded)


class TellsOfGarbage(gym.Env):
    """Shows how often all garbage was collected in its process, and is rewarded if it may be at any time."""

    observation_space, action_space = gym.spaces.Box(0, np.inf, (1,)), gym.spaces.Box(-1, 1, (1,))

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(**kwargs)
        self.n_steps = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        return self._observation(), float(gc.isenabled()), self.n_steps == 4, False, {}

    def _observation(self) -> np.ndarray:
        return np.array([gc.get_stats()[2]["collections"]], np.float32)


def test_garbage_is_collected_between_episodes_only() -> None:
    with AsyncSAC("MlpPolicy", TellsOfGarbage, **small(backend="process", control_hz=200)) as model:
        model.learn(12)
        buffer = model.replay_buffer
    assert buffer is not None
    assert (buffer.rewards[:12] == 0).all()
    n_collected = buffer.observations[:12].reshape(3, 4)
    # The first observation of an episode comes before the collection, which then is over.
    assert (n_collected[:, 1:] == n_collected[:, 1:2]).all()
    assert (np.diff(n_collected[:, 1]) == 1).all()


def test_model_continues_in_another_mode(tmp_path: Any) -> None:
    with AsyncSAC("MlpPolicy", "Pendulum-v1", **small(max_replay_ratio=2)) as model:
        model.save(tmp_path / "model")
    with AsyncSAC.load(tmp_path / "model", "Pendulum-v1", mode="sync", backend="inline", n_samplers=1) as other:
        other.learn(10)
        other.save(tmp_path / "model")
    arguments: dict[str, Any] = {"mode": "realtime", "fallback_action": [0.0], "backend": "inline"}
    with AsyncSAC.load(tmp_path / "model", "Pendulum-v1", **arguments) as again:
        again.learn(10)
        assert (again.mode, again.control_hz, again.max_replay_ratio) == ("realtime", None, None)

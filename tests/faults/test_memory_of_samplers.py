"""A sampler that takes the place of a dead one begins with LSTM states of zero."""

from typing import Any

import numpy as np
import pytest
from fault_models import make_model
from killer import killing
from stable_baselines3.common.callbacks import BaseCallback
from stamped_task import LIFE, STEP, StampedTask

from sb3_walle import SamplerVecEnv
from sb3_walle.samplers.actors.lstm_states import LSTM_STATES


class Lives(BaseCallback):
    """Looks at the states where a column shows an environment for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.n_lives, self.has_states = 0, False
        self._last = np.full(0, np.nan)

    def _on_training_start(self) -> None:
        self._last = np.full(self.training_env.num_envs, np.nan)

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        stamps = buffer.observations[:, :, 0]
        for row, stamp in enumerate(stamps):
            is_new = stamp[:, LIFE] != self._last
            self._last = stamp[:, LIFE]
            self.n_lives += int(is_new.sum())
            assert (stamp[is_new, STEP] == 0).all() and buffer.state_resets[row, is_new].all()
            for name in LSTM_STATES:
                states = getattr(buffer, name)[row]
                assert not states[:, is_new].any()
                self.has_states |= bool(states[:, ~is_new].any())


@pytest.mark.filterwarnings("ignore::sb3_walle.samplers.errors.SamplerWarning")
def test_a_new_sampler_begins_with_states_of_zero() -> None:
    env = SamplerVecEnv([StampedTask] * 2, max_restarts=10_000)
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 128}
    with make_model("RecurrentPPO sync", env, **settings) as model, killing(model) as killed:
        model.learn(20 * 128, callback=(lives := Lives()))
        assert killed and lives.n_lives > 2 and lives.has_states

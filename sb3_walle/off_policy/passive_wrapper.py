"""A ``VecEnv`` wrapper that asks nothing of the environments when it is made."""

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn


class PassiveWrapper(VecEnvWrapper):
    """Does what the environments inside do. Unlike other wrappers, it can surround environments that are at work."""

    def __init__(self, venv: VecEnv) -> None:
        # Not VecEnv's constructor, which asks environments for their render mode.
        self.venv, self.num_envs = venv, venv.num_envs
        self.observation_space, self.action_space = venv.observation_space, venv.action_space

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()

"""SB3's EvalCallback, beside training."""

import io
import os
import pickle
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.vec_env import VecEnv, VecMonitor, VecNormalize, unwrap_vec_normalize

from sb3_walle.callbacks.evaluator import Evaluation, Evaluator
from sb3_walle.envs.env_sources import EnvSource, SamplerChoices, in_samplers
from sb3_walle.envs.normalization import Normalization
from sb3_walle.envs.vec_env import SamplerVecEnv
from sb3_walle.envs.wrappers import chain_of, layers_of
from sb3_walle.samplers.actors.choice import streams_of
from sb3_walle.samplers.actors.predictor_choice import predictor_spec
from sb3_walle.samplers.evaluation import EvaluationTask
from sb3_walle.samplers.normalizer import NormalizerSpec
from sb3_walle.samplers.stack import LayerSpec
from sb3_walle.samplers.succession import other_seed
from sb3_walle.saving import written_whole
from sb3_walle.sb3_private import clear_reset_arguments, reset_arguments
from sb3_walle.user_warning import warn_user

# Sets the random streams of evaluations apart from those of training with the same seed.
_STREAM = 2**31


@dataclass(frozen=True)
class _Candidate:
    """
    What is being evaluated.

    :param num_timesteps: for how many steps it was trained
    :param files: what to save if it is the best, by name
    """

    num_timesteps: int
    files: dict[str, bytes]


class AsyncEvalCallback(EvalCallback):
    """
    SB3's ``EvalCallback``, but training goes on meanwhile: samplers of its own evaluate the policy as it was when the
    evaluation came due. Works with every algorithm of this package, and with SB3's own.

    What it logs, prints and saves belongs to the policy that was evaluated, and bears its ``num_timesteps``. The best
    model is saved as it was then; beside it ``vecnormalize.pkl``, the statistics that belong to it, if there are any.

    When a result counts (is logged, saved, and shown to the callbacks, which may end training):

    - If the run can be repeated, because the model has a ``seed`` and its mode is ``"sync"`` or ``"pipelined"``, a
      result counts when the next evaluation comes due, or at the end of training. If it is not there by then, training
      waits for it. So the same seed gives the same evaluations, and the same end of training, whatever the timing.
    - Otherwise it counts as soon as it is there, and training never waits before its end. An evaluation that comes due
      while another one is under way is skipped; ``eval/n_skipped`` tells how many were.

    A warning says once that training waits, or that evaluations are skipped.

    .. code-block:: python

        evaluation = AsyncEvalCallback("HalfCheetah-v4", eval_freq=5_000, best_model_save_path="best")
        model.learn(1_000_000, callback=evaluation)

    :param eval_env: as ``env`` of an algorithm: an env id, a function that builds an environment, an environment, a
        :class:`SamplerVecEnv`, or a ``DummyVecEnv`` whose environments can be moved. Unless it is inside of ``VecEnv``
        wrappers itself, samplers wrap it as the training environments are wrapped. Statistics of ``VecNormalize`` are
        always those of the policy, and do not change; rewards are not normalised. Where nothing seeds it, the model's
        ``seed`` does
    :param callback_on_new_best: as in SB3
    :param callback_after_eval: as in SB3. The model that callbacks see is the one in training, not the one evaluated
    :param n_eval_episodes: as in SB3
    :param eval_freq: as in SB3
    :param log_path: as in SB3
    :param best_model_save_path: as in SB3
    :param deterministic: as in SB3
    :param render: as in SB3
    :param verbose: as in SB3
    :param warn: has no effect: samplers wrap every environment in a ``Monitor``
    :param n_envs: number of environments, all in one sampler, that share the episodes; only where ``eval_env`` does not
        tell it
    :raises ValueError: if a number is wrong, or does not fit ``eval_env``
    :raises TypeError: if the environments cannot be moved to a sampler
    :raises SamplerError: if an environment cannot be built
    """

    def __init__(
        self,
        eval_env: EnvSource,
        callback_on_new_best: BaseCallback | None = None,
        callback_after_eval: BaseCallback | None = None,
        n_eval_episodes: int = 5,
        eval_freq: int = 10_000,
        log_path: str | None = None,
        best_model_save_path: str | None = None,
        deterministic: bool = True,
        render: bool = False,
        verbose: int = 1,
        warn: bool = True,
        *,
        n_envs: int = 1,
    ) -> None:
        with in_samplers(eval_env, _choices(eval_env, n_envs), may_refuse=True) as samplers:
            if samplers is None:
                raise TypeError("eval_env must be an env id, a function, an environment or a VecEnv, got None")
            super().__init__(
                samplers,
                callback_on_new_best,
                callback_after_eval,
                n_eval_episodes,
                eval_freq,
                log_path,
                best_model_save_path,
                deterministic,
                render,
                verbose,
                warn,
            )
            assert isinstance(samplers.unwrapped, SamplerVecEnv)
            self._samplers: SamplerVecEnv = samplers.unwrapped
            self._evaluator = Evaluator(self._samplers.client)
        self._candidate: _Candidate | None = None
        self._n_started = 0
        self._is_warned = False
        #: how many evaluations were skipped
        self.n_skipped = 0

    def _init_callback(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Training and eval env are not of the same type")
            super()._init_callback()
        _check_model(self.model)
        if self.training_env.unwrapped is self._samplers:
            raise ValueError(
                "eval_env is the environment that the model trains in, which evaluations would disturb. Pass another "
                "one: an env id or a function that builds an environment, say."
            )
        # Closing the samplers ends an evaluation.
        self._samplers.collector = self._evaluator

    def _on_training_start(self) -> None:
        if self.parent is not None:
            raise ValueError(
                f"{type(self.parent).__name__} does not tell the callback that it calls when training ends, so the "
                "last evaluation would be lost. Pass AsyncEvalCallback to learn() itself, alone or in a list; "
                "eval_freq says how often it evaluates."
            )
        super()._on_training_start()
        # An exception may have ended the training before.
        self._evaluator.interrupt()
        self._candidate = None

    def _on_step(self) -> bool:
        is_due = self.eval_freq > 0 and self.n_calls % self.eval_freq == 0
        self._evaluator.look(at_once=is_due)
        if self._candidate is not None:
            is_done = self._evaluator.is_done
            if is_due and not is_done:
                self._note_slowness()
            if (is_due if self._is_repeatable else is_done) and not self._take_in():
                return False
        if is_due and self._candidate is None:
            self._begin()
        return True

    def _on_training_end(self) -> None:
        if self._candidate is not None:
            self._take_in()

    @property
    def _is_repeatable(self) -> bool:
        """Whether the same seed gives the same training. Then nothing may depend on how long an evaluation takes."""
        return self.model.seed is not None and getattr(self.model, "mode", "sync") not in ("free", "realtime")

    def _note_slowness(self) -> None:
        """An evaluation comes due while another one is under way."""
        if not self._is_repeatable:
            self.n_skipped += 1
        # The first takes longer: the sampler may have to import torch.
        if self._n_started > 1 and not self._is_warned:
            self._is_warned = True
            consequence = "training waits for it" if self._is_repeatable else "evaluations are skipped meanwhile"
            warn_user(
                f"An evaluation of {self.n_eval_episodes} episodes takes longer than training from one evaluation to "
                f"the next, so {consequence}. Increase eval_freq, which is {self.eval_freq} calls, decrease "
                "n_eval_episodes, or divide the episodes among more environments with n_envs."
            )

    # Evaluating

    def _begin(self) -> None:
        """Have samplers evaluate the policy as it is now."""
        model = self.model
        task = EvaluationTask(
            predictor_spec(
                model.policy,
                getattr(model, "sampler_actor", "auto"),
                self.deterministic,
                getattr(model, "exploration_rate", 0.0),
                (*streams_of(model.seed, self._n_started), _STREAM),
            ),
            # Divided as evaluate_policy() divides them.
            [(self.n_eval_episodes + env) // self.eval_env.num_envs for env in range(self.eval_env.num_envs)],
            self._layers(),
            self._statistics(),
            self.render,
            self._evaluator.sampler_end,
            self._evaluator.run,
        )
        candidate = _Candidate(self.num_timesteps, {} if self.best_model_save_path is None else _files(model))
        self._evaluator.start(task, *self._reset_arguments())
        self._candidate = candidate
        self._n_started += 1

    def _layers(self) -> tuple[LayerSpec, ...]:
        """What the samplers put around the environments, from the inside to the outside."""
        _, wrappers = chain_of(self.eval_env)
        if not wrappers:
            inside, wrappers = chain_of(self.training_env)
            _check_spaces(self._samplers, inside)
            wrappers = [wrapper for wrapper in wrappers if not isinstance(wrapper, VecMonitor)]
        if self._vec_normalize_of_training is not None and not any(isinstance(one, VecNormalize) for one in wrappers):
            raise ValueError(
                "The training environments are inside of a VecNormalize and eval_env is not, but inside of other "
                "wrappers. Wrap it in the same way, or pass it without wrappers: samplers then wrap it as the training "
                "environments are."
            )
        return tuple(
            replace(layer, for_evaluation=True) if isinstance(layer, NormalizerSpec) else layer
            for layer in layers_of(wrappers)
        )

    def _statistics(self) -> dict[str, np.ndarray]:
        """What observations are normalised with: what belongs to the policy, as far as there is any."""
        statistics: dict[str, np.ndarray] = {}
        for vec_normalize in (unwrap_vec_normalize(self.eval_env), self._vec_normalize_of_training):
            if vec_normalize is not None:
                statistics |= Normalization(vec_normalize).published()
        return statistics

    @property
    def _vec_normalize_of_training(self) -> VecNormalize | None:
        return self.model.get_vec_normalize_env()

    def _reset_arguments(self) -> tuple[list[int | None], list[dict[str, Any]]]:
        """Seeds and options for the first episodes."""
        samplers, seed = self._samplers, self.model.seed
        seeds, options = reset_arguments(samplers)
        if self._n_started == 0 and seed is not None and samplers.first_seed is None and seeds == [None] * len(seeds):
            samplers.seed(other_seed(seed, _STREAM))
            seeds, options = reset_arguments(samplers)
        clear_reset_arguments(samplers)
        return seeds, options

    # What follows from a result, as in EvalCallback._on_step()

    def _take_in(self) -> bool:
        """Wait for the result of what is being evaluated. Returns False if a callback ends training."""
        candidate, evaluation = self._candidate, self._evaluator.wait()
        assert candidate is not None
        self._candidate = None
        self._append_to_file(candidate, evaluation)
        self._log(candidate, evaluation)
        mean_reward = float(np.mean(evaluation.rewards))
        self.last_mean_reward = mean_reward
        continues = True
        if mean_reward > self.best_mean_reward:
            if self.verbose >= 1:
                print("New best mean reward!")
            self._save_best(candidate)
            self.best_mean_reward = mean_reward
            if self.callback_on_new_best is not None:
                continues = self.callback_on_new_best.on_step()
        if self.callback is not None:
            continues = continues and self._on_event()
        return continues

    def _append_to_file(self, candidate: _Candidate, evaluation: Evaluation) -> None:
        if self.log_path is None:
            return
        self.evaluations_timesteps.append(candidate.num_timesteps)
        self.evaluations_results.append(evaluation.rewards)
        self.evaluations_length.append(evaluation.lengths)
        arrays: dict[str, Any] = {
            "timesteps": self.evaluations_timesteps,
            "results": self.evaluations_results,
            "ep_lengths": self.evaluations_length,
        }
        if evaluation.successes:
            self.evaluations_successes.append(evaluation.successes)
            arrays["successes"] = self.evaluations_successes
        with written_whole(f"{self.log_path}.npz") as file:
            np.savez(file, **arrays)

    def _log(self, candidate: _Candidate, evaluation: Evaluation) -> None:
        rewards, lengths = evaluation.rewards, evaluation.lengths
        if self.verbose >= 1:
            print(
                f"Eval num_timesteps={candidate.num_timesteps}, "
                f"episode_reward={np.mean(rewards):.2f} +/- {np.std(rewards):.2f}"
            )
            print(f"Episode length: {np.mean(lengths):.2f} +/- {np.std(lengths):.2f}")
        with _emptied(self.logger) as logger:
            logger.record("eval/mean_reward", float(np.mean(rewards)))
            logger.record("eval/mean_ep_length", np.mean(lengths))
            if evaluation.successes:
                success_rate = np.mean(evaluation.successes)
                if self.verbose >= 1:
                    print(f"Success rate: {100 * success_rate:.2f}%")
                logger.record("eval/success_rate", success_rate)
            if self.n_skipped > 0:
                logger.record("eval/n_skipped", self.n_skipped)
            logger.record("time/total_timesteps", candidate.num_timesteps, exclude="tensorboard")
            logger.dump(candidate.num_timesteps)

    def _save_best(self, candidate: _Candidate) -> None:
        if self.best_model_save_path is None:
            return
        with ExitStack() as files:
            # A stack is left from its end, so that the model gets its name last: what belongs to it is there.
            for name, content in candidate.files.items():
                files.enter_context(written_whole(os.path.join(self.best_model_save_path, name))).write(content)


def _choices(eval_env: EnvSource, n_envs: int) -> SamplerChoices:
    """All environments in one sampler, unless samplers are there already."""
    if not isinstance(n_envs, int | np.integer) or n_envs < 1:
        raise ValueError(f"n_envs must be an integer of at least 1, got {n_envs!r}")
    if not isinstance(eval_env, VecEnv):
        return SamplerChoices(n_samplers=1, envs_per_sampler=n_envs)
    if n_envs not in (1, eval_env.num_envs):
        raise ValueError(f"n_envs={n_envs} was given, but eval_env has {eval_env.num_envs} environments")
    return SamplerChoices() if isinstance(eval_env.unwrapped, SamplerVecEnv) else SamplerChoices(n_samplers=1)


def _check_model(model: BaseAlgorithm) -> None:
    owner = next(owner for owner in type(model).__mro__ if "predict" in vars(owner))
    if owner.__module__.split(".")[0] not in ("stable_baselines3", "sb3_contrib"):
        raise ValueError(
            f"{owner.__name__} overrides predict(), which samplers do not call: they have the policy, not the model. "
            "Use SB3's EvalCallback, or override predict() of the policy instead."
        )


def _check_spaces(samplers: SamplerVecEnv, training: VecEnv) -> None:
    found = samplers.observation_space, samplers.action_space
    expected = training.observation_space, training.action_space
    if found != expected:
        raise ValueError(
            f"eval_env has the spaces {found}, but the training environments {expected}. Where they differ in "
            "nothing but VecEnv wrappers, put the same ones around eval_env."
        )


@contextmanager
def _emptied(logger: Logger) -> Iterator[Logger]:
    """For the length of the block, a logger without what training has recorded, which belongs to another step."""
    recorded = logger.name_to_value, logger.name_to_count, logger.name_to_excluded
    logger.name_to_value, logger.name_to_count, logger.name_to_excluded = defaultdict(float), defaultdict(int), {}
    try:
        yield logger
    finally:
        logger.name_to_value, logger.name_to_count, logger.name_to_excluded = recorded


def _files(model: BaseAlgorithm) -> dict[str, bytes]:
    """The model as it is now, and the statistics that belong to it, as files."""
    buffer = io.BytesIO()
    model.save(buffer)
    files = {"best_model.zip": buffer.getvalue()}
    vec_normalize = model.get_vec_normalize_env()
    return files if vec_normalize is None else {**files, "vecnormalize.pkl": pickle.dumps(vec_normalize)}

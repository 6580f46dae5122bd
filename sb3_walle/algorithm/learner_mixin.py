"""The learner's side of an asynchronous algorithm: which update it makes, with how many processes and threads."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_walle.algorithm.experience_source import ExperienceSource
from sb3_walle.algorithm.learner_load import needs_threads
from sb3_walle.algorithm.several_learners import (
    NLearners,
    advice_on_cpus,
    are_several,
    check_shareable,
    likely_n_learners,
)
from sb3_walle.envs.wrappers import wrapped_samplers
from sb3_walle.gradient_workers.learners import Learners
from sb3_walle.timeline.timeline import UPDATE, LearnerSpan
from sb3_walle.updates.algorithm_update import AlgorithmUpdate
from sb3_walle.updates.updater import Updater
from sb3_walle.user_warning import warn_user

# Stands in front of an algorithm of SB3. Type checkers are told that it is one.
if TYPE_CHECKING:
    _Base = BaseAlgorithm
else:
    _Base = object


class LearnerMixin(_Base):
    """
    What :class:`~sb3_walle.algorithm.async_mixin.AsyncMixin` does between two rollouts. Its arguments ``learner`` and
    ``n_learners`` say how.
    """

    #: makes the algorithm's compiled updates, if it has any
    update_class: ClassVar[type[AlgorithmUpdate] | None] = None

    mode: str
    learner: str
    n_learners: NLearners
    _experience: ExperienceSource
    _updater: Updater | None
    _learn_seconds: float | None

    # What an algorithm's kind decides

    def _n_steps_per_rollout(self) -> int:
        """:return: steps of each environment in a rollout"""
        raise NotImplementedError

    def _samples_per_step(self) -> float:
        """:return: samples that are learned from for each step of an environment"""
        raise NotImplementedError

    def _prepare_updates(self) -> None:
        """Called when ``learn()`` begins and samplers are ready."""

    # Which update

    def _check_updates(self) -> None:
        """:raises ValueError: if the algorithm does not have the updates that the user asks for"""
        if are_several(self.n_learners):
            check_shareable(self, self.n_learners, self.learner, self._get_updater() is not None)
        if self.learner == "compiled":
            self._require_compiled_update()

    def _require_compiled_update(self) -> None:
        updater, name = self._get_updater(), type(self).__name__
        if updater is not None:
            updater.require()
        elif self.update_class is None:
            raise ValueError(f"{name} has no compiled update. Use learner='auto' or 'eager'.")
        else:
            known = self.update_class.sb3_train.__qualname__
            raise ValueError(
                f"learner='compiled' takes the place of SB3's {known}(), and {name} makes another update. "
                "Use learner='auto' or 'eager'."
            )

    def _get_updater(self) -> Updater | None:
        """What makes compiled updates, ``None`` if there are none of this algorithm."""
        if self._updater is None and self.update_class is not None and self._trains_as_sb3():
            n_learners = self._n_learners_to_use()
            sharing = Learners(n_learners) if n_learners > 1 else None
            must_gain = self.n_learners == "auto" and self.seed is None
            self._updater = Updater(self.update_class(self), self.learner, sharing, must_gain)
        return self._updater

    def _trains_as_sb3(self) -> bool:
        """Whether the update is the one that is compiled: a class in between, say, may have another one."""
        train = getattr(super(), "train", None)
        return getattr(train, "__func__", None) is getattr(self.update_class, "sb3_train", None)

    def _n_learners_to_use(self) -> int:
        if self.n_learners != "auto":
            return self.n_learners
        if self.learner == "eager" or self.device.type != "cpu":
            return 1
        env = wrapped_samplers(self.env)
        n_samplers = 0 if env is None or self.mode == "sync" else env.vec_env.client.n_processes
        return likely_n_learners(self.policy, self._samples_of_minibatch(), self._samples_per_step(), n_samplers)

    def _advise_on_cpus(self) -> None:
        """Tell the user of several learners if they and the samplers are more than there are CPUs."""
        env = wrapped_samplers(self.env)
        if env is None or not are_several(self.n_learners):
            return
        advice = advice_on_cpus(self.n_learners, env.vec_env.client.n_processes, self.mode)
        if advice is not None and self.verbose >= 1:
            print(advice)
        elif advice is not None:
            warn_user(f"{advice}.")

    # An update at work

    @contextmanager
    def _training(self) -> Iterator[None]:
        """Around an update: shares the CPUs, and measures how long the update takes."""
        began = perf_counter()
        with self._cpus_shared():
            yield
        ended = perf_counter()
        self._learn_seconds = ended - began
        if self._experience.timeline is not None:
            self._experience.timeline.note(LearnerSpan(UPDATE, began, ended))

    def _cpus_shared(self) -> AbstractContextManager[None]:
        is_compiling = self._updater is not None and self._updater.is_compiling
        return self._experience.cpus_shared(n_others=int(is_compiling), needs_more=self._needs_threads())

    def _needs_threads(self) -> bool:
        """Whether the learner takes cores from samplers, which mostly wait for it."""
        return needs_threads(self.policy, self._samples_of_minibatch(), self._samples_per_step())

    def _samples_of_minibatch(self) -> int:
        # A2C learns from the whole rollout at once.
        return getattr(self, "batch_size", self._n_steps_per_rollout() * self.n_envs)

    def _record_learner(self) -> None:
        """Have the next log tell how the learner is doing."""
        if self._updater is not None and self._updater.sharing is not None:
            self.logger.record("async/learner_restarts", self._updater.sharing.n_restarts)
        if self._learn_seconds is not None:
            self.logger.record("time/learn_seconds", self._learn_seconds)

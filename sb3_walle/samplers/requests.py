"""
What the learner can ask of a sampler. Every request gets exactly one reply, in the order in which they were sent.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import gymnasium as gym
import numpy as np

from sb3_walle.samplers.episodes import CompletedEpisodes
from sb3_walle.samplers.errors import Failure
from sb3_walle.samplers.evaluation import EvaluationTask, Outcome, evaluate
from sb3_walle.samplers.factories import EnvFactory, Registrations
from sb3_walle.samplers.monitor import continuing_files, write_own_files
from sb3_walle.samplers.quiet import quiet
from sb3_walle.samplers.sampler import CollectionSettings, Sampler
from sb3_walle.samplers.stack import EnvDescription, LayerSpec
from sb3_walle.samplers.tickets import ChunkReport, DriveOrder, Ticket
from sb3_walle.transport.chunk import Observations


@dataclass(frozen=True)
class Result:
    """What a request returned that was carried out."""

    value: Any


Reply: TypeAlias = Result | Failure


class Request(ABC):
    """Something that a sampler can be asked to do."""

    #: what the sampler is doing, as in "Sampler 3 failed while ..."
    summary: ClassVar[str]
    #: whether an exception leaves the environments in a state that nothing more should be built on, so that the sampler
    #: ends and another one takes its place
    failure_ends_sampler: ClassVar[bool] = False
    #: whether the request makes sense to a sampler with new environments, after the one that was asked has died
    can_be_repeated: ClassVar[bool] = True
    #: whether there is nothing of the user's in it, so that it can be pickled in the fastest way
    is_plain: ClassVar[bool] = False
    #: whether plants in mode "realtime" rest from then on, rather than between two of their steps
    rests_plants: ClassVar[bool] = False

    @abstractmethod
    def run(self, sampler: Sampler) -> Any:
        """:return: the value of the reply"""

    def why_not_sent(self, value: Any, error: Exception) -> Exception:
        """:return: the exception that tells the user why the value of the reply could not be pickled"""
        return error


def answer(sampler: Sampler, request: Request) -> Reply:
    """Carry out a request, and reply with its result, or with the exception that it raised."""
    try:
        return Result(request.run(sampler))
    except (Exception, SystemExit) as error:
        return Failure.of(error, request.summary)


@dataclass(frozen=True)
class BuildEnvs(Request):
    """
    Build the environments, see :meth:`Sampler.build_envs`.

    :param show_warnings: whether this sampler is the one whose warnings are shown; all of them would say the same
    :param registrations: what is registered with Gymnasium before, if anything
    :param incarnation: how many samplers had these environments before, whose monitor files are continued
    """

    factories: Sequence[EnvFactory]
    layers: Sequence[LayerSpec]
    show_warnings: bool
    registrations: Registrations | None = None
    incarnation: int = 0
    summary: ClassVar[str] = "building its environments"

    def run(self, sampler: Sampler) -> EnvDescription:
        if self.registrations is not None:
            self.registrations.register()
        warnings = contextlib.nullcontext() if self.show_warnings else quiet()
        monitor_files = continuing_files() if self.incarnation else contextlib.nullcontext()
        with warnings, monitor_files:
            return sampler.build_envs(self.factories, self.layers, self.incarnation)


@dataclass(frozen=True)
class Register(Request):
    """Register environments with Gymnasium."""

    registrations: Registrations
    summary: ClassVar[str] = "registering environments"

    def run(self, sampler: Sampler) -> None:
        self.registrations.register()


@dataclass(frozen=True)
class WriteOwnFiles(Request):
    """
    Write monitor files that no other sampler writes, see :func:`write_own_files`.

    :param owners: by their names, which environment each file belongs to that several write
    :param first_env: number of the sampler's first environment
    """

    owners: Mapping[str, int]
    first_env: int
    summary: ClassVar[str] = "opening its monitor files"

    def run(self, sampler: Sampler) -> None:
        for index, env in enumerate(sampler.envs.envs):
            write_own_files(env, self.first_env + index, self.owners)


@dataclass(frozen=True)
class Configure(Request):
    """Get ready to collect chunks, see :meth:`Sampler.configure`."""

    settings: CollectionSettings
    n_steps: int = 0
    completed: CompletedEpisodes | None = None
    summary: ClassVar[str] = "preparing to collect"
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> None:
        sampler.configure(self.settings, self.n_steps, self.completed)


@dataclass(frozen=True)
class Collect(Request):
    """Collect one chunk."""

    ticket: Ticket
    summary: ClassVar[str] = "collecting experience"
    failure_ends_sampler: ClassVar[bool] = True
    is_plain: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> ChunkReport:
        return sampler.collect(self.ticket)


@dataclass(frozen=True)
class Drive(Request):
    """Act on the environment in real time, as long as there is no other request."""

    order: DriveOrder
    summary: ClassVar[str] = "acting in real time"
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> None:
        sampler.order = self.order


@dataclass(frozen=True)
class Evaluate(Request):
    """
    Evaluate a policy in new episodes.

    :param seeds: for the first episodes: one for each environment, or ``None``
    :param options: Gymnasium's reset options for each environment
    """

    task: EvaluationTask
    seeds: Sequence[int | None]
    options: Sequence[dict[str, Any]]
    summary: ClassVar[str] = "evaluating the policy"
    failure_ends_sampler: ClassVar[bool] = True
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> list[Outcome]:
        stack, task = sampler.stack, self.task
        stack.begin_evaluation(task.layers, task.statistics, self.seeds, self.options)
        return evaluate(stack, task, sampler.index)


@dataclass(frozen=True)
class ResetResult:
    """The first observations of new episodes, ``[B, ...]``, and the infos that came with them."""

    observations: Observations
    reset_infos: list[dict[str, Any]]


@dataclass(frozen=True)
class Reset(Request):
    """
    Start new episodes.

    :param seeds: one seed for each environment, or ``None``
    :param options: Gymnasium's reset options for each environment
    """

    seeds: Sequence[int | None]
    options: Sequence[dict[str, Any]]
    summary: ClassVar[str] = "resetting its environments"
    failure_ends_sampler: ClassVar[bool] = True
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> ResetResult:
        sampler.stack.reset(self.seeds, self.options)
        return ResetResult(deepcopy(sampler.stack.vec_env_layer.observations), deepcopy(sampler.envs.reset_infos))


@dataclass(frozen=True)
class StepResult:
    """
    What a step led to: ``[B, ...]`` observations, ``[B]`` rewards and dones, an info for each environment, and the info
    of the last reset of each.
    """

    observations: Observations
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]
    reset_infos: list[dict[str, Any]]


@dataclass(frozen=True)
class Step(Request):
    """Step every environment once, with one action for each."""

    actions: np.ndarray
    summary: ClassVar[str] = "stepping its environments"
    # A new sampler is in another episode.
    can_be_repeated: ClassVar[bool] = False
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> StepResult:
        stack = sampler.stack
        rewards = np.zeros(stack.envs.n_envs, dtype=np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(stack.envs.n_envs)]

        def keep(env: int, info: dict[str, Any], done: bool) -> None:
            infos[env] = deepcopy(info)

        stack.step_in_lockstep(self.actions, rewards, keep)
        return StepResult(
            deepcopy(stack.vec_env_layer.observations),
            rewards,
            stack.episode_starts.copy(),
            infos,
            deepcopy(stack.envs.reset_infos),
        )


@dataclass(frozen=True)
class GetAttr(Request):
    """See :meth:`SamplerEnvs.get_attr`."""

    name: str
    indices: Sequence[int]
    summary: ClassVar[str] = "reading an attribute of its environments"

    def run(self, sampler: Sampler) -> list[Any]:
        return sampler.envs.get_attr(self.name, self.indices)

    def why_not_sent(self, value: list[Any], error: Exception) -> Exception:
        return _not_picklable(f"The attribute {self.name!r}", value, error)


@dataclass(frozen=True)
class HasAttr(Request):
    """See :meth:`SamplerEnvs.has_attr`."""

    name: str
    indices: Sequence[int]
    summary: ClassVar[str] = "looking for an attribute of its environments"

    def run(self, sampler: Sampler) -> list[bool]:
        return sampler.envs.has_attr(self.name, self.indices)


@dataclass(frozen=True)
class SetAttr(Request):
    """See :meth:`SamplerEnvs.set_attr`."""

    name: str
    value: Any
    indices: Sequence[int]
    summary: ClassVar[str] = "setting an attribute of its environments"

    def run(self, sampler: Sampler) -> None:
        sampler.envs.set_attr(self.name, self.value, self.indices)


@dataclass(frozen=True)
class EnvMethod(Request):
    """See :meth:`SamplerEnvs.env_method`."""

    name: str
    args: tuple
    kwargs: dict[str, Any]
    indices: Sequence[int]
    summary: ClassVar[str] = "calling a method of its environments"

    def run(self, sampler: Sampler) -> list[Any]:
        return sampler.envs.env_method(self.name, self.args, self.kwargs, self.indices)

    def why_not_sent(self, value: list[Any], error: Exception) -> Exception:
        return _not_picklable(f"What the method {self.name!r} returned", value, error)


@dataclass(frozen=True)
class EnvIsWrapped(Request):
    """See :meth:`SamplerEnvs.env_is_wrapped`."""

    wrapper_class: type[gym.Wrapper]
    indices: Sequence[int]
    summary: ClassVar[str] = "looking for a wrapper around its environments"

    def run(self, sampler: Sampler) -> list[bool]:
        return sampler.envs.env_is_wrapped(self.wrapper_class, self.indices)


@dataclass(frozen=True)
class GetEnvs(Request):
    """Hand out the environments themselves, to the process that the sampler lives in."""

    summary: ClassVar[str] = "handing out its environments"

    def run(self, sampler: Sampler) -> list[gym.Env]:
        if len(sampler.envs.envs) < sampler.envs.n_envs:
            raise AttributeError("A vectorised environment has no single environments to show")
        return list(sampler.envs.envs)


@dataclass(frozen=True)
class CloseEnvs(Request):
    """Close the environments; the last request that a sampler gets."""

    summary: ClassVar[str] = "closing its environments"
    rests_plants: ClassVar[bool] = True

    def run(self, sampler: Sampler) -> None:
        sampler.close()


def _not_picklable(what: str, values: list[Any], error: Exception) -> TypeError:
    return TypeError(
        f"{what} is of {type(values[0])} and cannot be pickled, which it must be to leave the sampler's process: "
        f"{error}. Let a method of the environment return the parts that you need and call it with env_method(); "
        'has_attr() tells whether there is such an attribute; with backend="inline" nothing is pickled.'
    )

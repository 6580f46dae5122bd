"""Asking the samplers for something that concerns their environments."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.vec_env.util import obs_space_info

from sb3_walle.backends.client import SamplerClient
from sb3_walle.samplers.errors import SamplerError, UnsupportedSpaceError
from sb3_walle.samplers.factories import EnvFactory, RegistryWatch
from sb3_walle.samplers.refusals import RefusedEnvError, SharedEnvError
from sb3_walle.samplers.requests import BuildEnvs, Register, Request, WriteOwnFiles
from sb3_walle.samplers.stack import EnvDescription, LayerSpec
from sb3_walle.samplers.succession import Setters


class EnvRequests:
    """Numbers environments through all samplers: environment ``i`` lives in sampler ``i // envs_per_sampler``."""

    def __init__(self, client: SamplerClient, n_samplers: int, envs_per_sampler: int) -> None:
        self._client, self._n_samplers, self._size = client, n_samplers, envs_per_sampler
        self._registry = RegistryWatch()
        #: what was set in the first environment
        self.first_setters = Setters()

    def build(self, env_fns: Sequence[EnvFactory], layers: Sequence[LayerSpec]) -> EnvDescription:
        """
        Have every sampler build its environments.

        :return: what they are like
        """
        registrations = self._registry.news()
        try:
            descriptions: list[EnvDescription] = self.ask(
                lambda envs: BuildEnvs(
                    env_fns[envs], layers, show_warnings=envs.start == 0, registrations=registrations
                )
            )
        except SamplerError as error:
            if isinstance(error.__cause__, UnsupportedSpaceError):
                raise _refusal(error.__cause__.space) from None
            if isinstance(error.__cause__, RefusedEnvError):
                raise error.__cause__ from None
            raise
        spaces_of = [(description.observation_space, description.action_space) for description in descriptions]
        for sampler, found in enumerate(spaces_of):
            if found != spaces_of[0]:
                raise ValueError(
                    f"All environments must have the same spaces. Sampler 0 has {spaces_of[0]}, sampler {sampler} has "
                    f"{found}"
                )
        if len({identity for description in descriptions for identity in description.identities}) < len(env_fns):
            raise SharedEnvError
        self._separate_files([files for description in descriptions for files in description.monitor_files])
        return descriptions[0]

    def ask(self, request_for: Callable[[slice], Request]) -> list[Any]:
        """Ask every sampler, each for its own environments."""
        size = self._size
        requests = {n: request_for(slice(n * size, (n + 1) * size)) for n in range(self._n_samplers)}
        return list(self._client.call(requests).values())

    def ask_some(self, request_for: Callable[[list[int]], Request], chosen: Sequence[int]) -> list[Any]:
        """
        Ask the samplers that some environments belong to.

        :param request_for: makes the request for environments of one sampler, numbered from 0
        :return: one answer for each of the chosen environments
        """
        registrations = self._registry.news()
        if registrations is not None:
            # A method may make what was registered with Gymnasium since samplers were told last.
            self.ask(lambda envs: Register(registrations))
        by_sampler: dict[int, list[int]] = {}
        for index in chosen:
            by_sampler.setdefault(index // self._size, []).append(index % self._size)
        answers = self._client.call({sampler: request_for(envs) for sampler, envs in by_sampler.items()})
        if 0 in chosen:
            self.first_setters.note(request_for([0]))
        values = {sampler: iter(answer or [None] * len(by_sampler[sampler])) for sampler, answer in answers.items()}
        return [next(values[index // self._size]) for index in chosen]

    def _separate_files(self, files_of_envs: Sequence[Sequence[str]]) -> None:
        """Give each environment a monitor file of its own, where several write the same."""
        n_writers = Counter(file for files in files_of_envs for file in files)
        owners: dict[str, int] = {}
        for env, files in enumerate(files_of_envs):
            for file in files:
                if n_writers[file] > 1:
                    owners.setdefault(file, env)
        if owners:
            self.ask(lambda envs: WriteOwnFiles(owners, envs.start))


@contextmanager
def attribute_errors() -> Iterator[None]:
    """Around a request that may name an attribute which environments do not have: raise what ``DummyVecEnv`` does."""
    try:
        yield
    except SamplerError as error:
        if isinstance(error.__cause__, AttributeError):
            raise AttributeError(str(error.__cause__)) from error
        raise


def _refusal(space: spaces.Space) -> Exception:
    """:return: what SB3 raises for a space that samplers cannot store observations of, in SB3's words if it has any"""
    try:
        obs_space_info(space)
    except (AssertionError, NotImplementedError) as error:
        return error
    text = str(UnsupportedSpaceError(space))
    # SB3 does not check for spaces without a shape, and stumbles over them.
    return NotImplementedError(text) if isinstance(space, spaces.Tuple) else TypeError(text)

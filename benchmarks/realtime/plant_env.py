"""The client of a plant: the same environment for all contenders."""

import contextlib
import pickle
import socket
import time
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from benchmarks.realtime.messages import ACT, CLOSE, MAX_BYTES, OBSERVE, RESET, STEP, Order, unpack_observed
from benchmarks.realtime.plant import Observed

#: in the info of a step: how many ticks it took
N_TICKS = "realtime/n_ticks"


class PlantEnv(gym.Env):
    """
    Sends each action to a plant, and waits for the plant's next tick: the plant keeps time. The reward is the sum since
    the step before.

    :param address: where the plant listens
    """

    def __init__(self, address: str) -> None:
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        self.observation_space, self.action_space = pickle.loads(self._socket.recv(MAX_BYTES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._ask(Order(RESET, seed=seed)).observation.astype(self.observation_space.dtype), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observed = self._ask(Order(STEP, action=action))
        return self._as_step(observed, {N_TICKS: observed.n_ticks})

    def close(self) -> None:
        if self._socket is None:
            return
        # The plant may have ended first.
        with contextlib.suppress(OSError):
            self._tell(Order(CLOSE))
        self._socket.close()
        self._socket = None

    def _as_step(self, observed: Observed, info: dict[str, Any]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation = observed.observation.astype(self.observation_space.dtype)
        return observation, observed.reward, observed.terminated, observed.truncated, info

    def _tell(self, order: Order) -> socket.socket:
        if self._socket is None:
            raise RuntimeError("The environment is closed.")
        self._socket.send(order.pack())
        return self._socket

    def _ask(self, order: Order) -> Observed:
        message = self._tell(order).recv(MAX_BYTES)
        if not message:
            raise ConnectionError("The plant has ended.")
        return unpack_observed(message)


class PacedPlantEnv(PlantEnv):
    """
    Keeps time itself, as the environment of a robot without a clock does: sends the action, waits, and looks at the
    plant. A sampler with ``control_hz`` puts its own wait in the place of :meth:`wait_for_tick`.

    :param hz: steps a second
    """

    def __init__(self, address: str, hz: float) -> None:
        super().__init__(address)
        self._period = 1 / hz
        self._due = 0.0

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._due = 0.0
        return super().reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._tell(Order(ACT, action=action))
        self.wait_for_tick()
        return self._as_step(self._ask(Order(OBSERVE)), {})

    def wait_for_tick(self) -> None:
        now = time.perf_counter()
        # The next one that is still to come: what is late does not make up for it in a burst.
        self._due = self._due + self._period if self._due + self._period > now else now + self._period
        time.sleep(self._due - now)


@dataclass(frozen=True)
class PlantEnvFactory:
    """
    Builds a client, in whichever process.

    :param hz: steps a second of an environment that keeps time itself, ``None`` where the plant does
    """

    address: str
    hz: float | None = None

    def __call__(self) -> PlantEnv:
        return PlantEnv(self.address) if self.hz is None else PacedPlantEnv(self.address, self.hz)

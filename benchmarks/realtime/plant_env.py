"""The client of a plant: the same environment for all contenders."""

import contextlib
import pickle
import socket
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from benchmarks.realtime.messages import CLOSE, MAX_BYTES, RESET, STEP, STEP_NOW, Order, unpack_observed

#: in the info of a step: ticks of the plant that it took
N_TICKS = "plant/n_ticks"


class PlantEnv(gym.Env):
    """
    Sends each action to a plant, and returns what the plant shows after it.

    :param address: where the plant listens
    :param paced_by: who keeps time. ``"plant"``: a step returns at the plant's next tick, with the sum of the rewards
        since the step before; ``"agent"``: it returns at once, and whoever calls :meth:`step` waits for the time of the
        next
    """

    def __init__(self, address: str, paced_by: str = "plant") -> None:
        self._step_kind = {"plant": STEP, "agent": STEP_NOW}[paced_by]
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(address)
        self.observation_space, self.action_space = pickle.loads(self._socket.recv(MAX_BYTES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        observed = self._ask(Order(RESET, seed=seed))
        return observed.observation.astype(self.observation_space.dtype), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, n_ticks, reward, terminated, truncated = self._ask(Order(self._step_kind, action=action))
        info = {N_TICKS: n_ticks}
        return observation.astype(self.observation_space.dtype), reward, terminated, truncated, info

    def close(self) -> None:
        if self._socket is None:
            return
        # The plant may have ended first.
        with contextlib.suppress(OSError):
            self._socket.send(Order(CLOSE).pack())
        self._socket.close()
        self._socket = None

    def _ask(self, order: Order) -> Any:
        if self._socket is None:
            raise RuntimeError("The environment is closed.")
        self._socket.send(order.pack())
        message = self._socket.recv(MAX_BYTES)
        if not message:
            raise ConnectionError("The plant has ended.")
        return unpack_observed(message)


@dataclass(frozen=True)
class PlantEnvFactory:
    """Builds a client, in whichever process."""

    address: str
    paced_by: str = "plant"

    def __call__(self) -> PlantEnv:
        return PlantEnv(self.address, self.paced_by)

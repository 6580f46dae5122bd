"""Requests on their way through a host, which only hands them on: it does not need what the user's objects need."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import cloudpickle

from sb3_walle.samplers.requests import Request
from sb3_walle.transport.ports import SamplerEnd, SamplerQueues


class HostQueuesEnd:
    """
    Stands, in the learner, for the samplers' end of the queues that each host opens on its own node.

    :param number: number of the queues
    """

    def __init__(self, number: int) -> None:
        self.number = number

    def open(self, sampler: int) -> SamplerQueues:
        """
        :param sampler: number of a sampler
        :raises RuntimeError: always: what a host puts in its place can be opened
        """
        raise RuntimeError("These queues can only be opened on a node of the cluster")


class _Pickler(cloudpickle.Pickler):
    def persistent_id(self, value: Any) -> str | None:
        return "queues" if isinstance(value, HostQueuesEnd) else None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, end: SamplerEnd | None) -> None:
        super().__init__(file)
        self._end = end

    def persistent_load(self, _: str) -> SamplerEnd | None:
        return self._end


def packed(request: Request) -> bytes:
    """
    :param request: a request
    :return: the same as bytes, without the queues
    """
    if request.is_plain:
        return pickle.dumps(request, pickle.HIGHEST_PROTOCOL)
    file = io.BytesIO()
    _Pickler(file, protocol=pickle.HIGHEST_PROTOCOL).dump(request)
    return file.getvalue()


def _unpacked(payload: bytes, end: SamplerEnd | None) -> Request:
    return _Unpickler(io.BytesIO(payload), end).load()


class PackedRequest:
    """
    A request that becomes itself again where it is unpickled, in the sampler.

    :param payload: the request as bytes
    :param is_plain: whether plain pickling does for it
    :param end: the samplers' end of the queues, for the request that needs it
    """

    #: as of :class:`~sb3_walle.samplers.requests.Request`
    is_plain: bool

    def __init__(self, payload: bytes, is_plain: bool, end: SamplerEnd | None) -> None:
        self._payload, self.is_plain, self._end = payload, is_plain, None if is_plain else end

    def __reduce__(self) -> tuple[Callable[..., Request], tuple[bytes, SamplerEnd | None]]:
        return _unpacked, (self._payload, self._end)

"""A graph on a GPU, recorded once and launched as a whole."""

import torch as th
from torch.fx import GraphModule

from sb3_walle.updates.unsupported import Unsupported

# torch asks for some runs before a recording, in which libraries choose their algorithms and allocate what they need.
N_WARM_UP = 3


class CapturedProgram:
    """
    Records the kernels of a graph as a CUDA graph. To launch them one by one takes longer than to run them.

    :param n_in_place: how many of the graph's inputs, the first ones, it changes in place; if they have moved, the
        graph is recorded anew
    """

    def __init__(self, graph: GraphModule, n_in_place: int) -> None:
        self._graph, self._n_in_place = graph, n_in_place
        self._recording: th.cuda.CUDAGraph | None = None
        self._places: tuple[int, ...] = ()
        self._fed: list[th.Tensor] = []
        self._output = th.empty(0)

    def __call__(self, inputs: list[th.Tensor]) -> th.Tensor:
        """:raises Unsupported: if the graph cannot be recorded"""
        places = tuple(tensor.data_ptr() for tensor in inputs[: self._n_in_place])
        if self._recording is None or places != self._places:
            self._record(inputs)
            self._places = places
        assert self._recording is not None
        for tensor, value in zip(self._fed, inputs[self._n_in_place :], strict=True):
            tensor.copy_(value)
        self._recording.replay()
        return self._output.clone()

    def _record(self, inputs: list[th.Tensor]) -> None:
        changed = inputs[: self._n_in_place]
        self._fed = [tensor.clone() for tensor in inputs[self._n_in_place :]]
        try:
            self._warm_up([tensor.clone() for tensor in changed])
            recording = th.cuda.CUDAGraph()
            with th.cuda.graph(recording):
                self._output = self._graph(*changed, *self._fed)[0]
        except RuntimeError as error:
            raise Unsupported(f"its kernels cannot be recorded: {error}") from error
        self._recording = recording

    def _warm_up(self, changed: list[th.Tensor]) -> None:
        stream = th.cuda.Stream()
        stream.wait_stream(th.cuda.current_stream())
        with th.cuda.stream(stream):
            for _ in range(N_WARM_UP):
                self._graph(*changed, *self._fed)
        th.cuda.current_stream().wait_stream(stream)

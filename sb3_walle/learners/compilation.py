"""A traced step on its way to a program: found on disk, compiled in the background, or recorded on a GPU."""

import torch as th

from sb3_walle.learners.captured import CapturedProgram
from sb3_walle.learners.minibatch_loop import Program
from sb3_walle.learners.native.blueprint import Blueprint
from sb3_walle.learners.native.build import Build
from sb3_walle.learners.native.program import NativeProgram
from sb3_walle.learners.native.store import ProgramStore
from sb3_walle.learners.ppo_trace import TracedStep
from sb3_walle.learners.unsupported import Unsupported

# With smaller minibatches, threads wait for each other longer than they compute. Images are always many numbers.
PARALLEL_BATCH_SIZE = 256
IMAGE_AXES = 3


class Compilation:
    """
    The program of a traced step, sooner or later.

    :param traced: the step
    :raises Unsupported: if there is no compiler for its device, or no place to keep programs
    """

    def __init__(self, traced: TracedStep) -> None:
        self.traced = traced
        self._program: Program | None = None
        self._build: Build | None = None
        device = traced.inputs[0].device
        #: whether the program uses as many threads as torch does, rather than one
        self.is_parallel = device.type != "cpu" or _is_large(traced)
        if device.type == "cuda":
            self._program = CapturedProgram(traced.graph, traced.n_in_place)
        elif device.type == "cpu":
            self._blueprint = Blueprint.of(traced.graph, traced.inputs, self.is_parallel)
            self._store = ProgramStore()
            self._program = self._found()
        else:
            raise Unsupported(f"there is no compiler for the device '{device}'")

    @property
    def is_begun(self) -> bool:
        """Whether the program is there, or is being compiled."""
        return self._program is not None or self._build is not None

    @property
    def seconds(self) -> float | None:
        """How long it took to compile; ``None`` if it was not necessary."""
        return None if self._build is None else self._build.seconds

    def begin(self) -> None:
        """Have the program compiled in the background, if it is not there already."""
        if not self.is_begun:
            self._build = Build(self._blueprint, self._store.path(self._blueprint.key))

    def program(self, wait: bool) -> Program | None:
        """
        :param wait: whether to wait for it
        :return: the program if it is there
        :raises Unsupported: if it could not be compiled, or cannot be loaded
        """
        if self._program is None and self._build is not None and self._build.is_done(wait):
            self._program = NativeProgram(self._store.path(self._blueprint.key))
            self._store.make_room()
        return self._program

    def close(self) -> None:
        """Stop compiling."""
        if self._build is not None:
            self._build.close()

    def _found(self) -> Program | None:
        key = self._blueprint.key
        if not self._store.has(key):
            return None
        try:
            program = NativeProgram(self._store.path(key))
        except Unsupported:
            # Whatever has happened to it, another one can be compiled.
            self._store.remove(key)
            return None
        self._store.note_use(key)
        return program


def may_be_at_hand(device: th.device) -> bool:
    """
    :param device: where updates are made
    :return: whether there may be a program without waiting for a compiler
    """
    if device.type == "cuda":
        return True
    try:
        return ProgramStore().has_any()
    except Unsupported:
        return False


def _is_large(traced: TracedStep) -> bool:
    if th.get_num_threads() == 1:
        return False
    n_fixed, n_observations = len(traced.step.tensors.fixed), traced.step.n_observations
    observations = traced.inputs[traced.n_in_place + n_fixed :][:n_observations]
    return traced.batch_size >= PARALLEL_BATCH_SIZE or any(len(part.shape) > IMAGE_AXES for part in observations)

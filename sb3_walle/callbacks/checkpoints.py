"""Checkpoints that a kill cannot spoil."""

import io
import os
import pickle
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import CheckpointCallback

from sb3_walle.saving import flush_to_disk, written_whole
from sb3_walle.sb3_private import checkpoint_path


@dataclass(frozen=True)
class Checkpoint:
    """
    The files of a checkpoint.

    :param steps: number of steps that the model was trained for
    :param vec_normalize: the statistics of its ``VecNormalize``, if they were saved
    :param replay_buffer: its replay buffer, if that was saved
    """

    steps: int
    model: Path
    vec_normalize: Path | None
    replay_buffer: Path | None


class SafeCheckpointCallback(CheckpointCallback):
    """
    SB3's ``CheckpointCallback``, for training that may be killed at any moment: each file is there whole or not at all,
    and the model comes last. Where there is a model, the files that belong to it are complete.

    Works with every algorithm of SB3, and names files as SB3 does. Unlike there, the statistics of ``VecNormalize`` are
    saved by default, if there is one: without them, a checkpoint can be neither trained on nor evaluated. A kill in the
    middle of a checkpoint leaves hidden files of it, ``.<name>.unfinished``.

    .. code-block:: python

        model.learn(1_000_000, callback=SafeCheckpointCallback(10_000, "checkpoints"))

        checkpoint = SafeCheckpointCallback.latest("checkpoints")
        env = VecNormalize.load(checkpoint.vec_normalize, SamplerVecEnv([make_env] * 10))
        model = AsyncPPO.load(checkpoint.model, env=env)
        model.learn(1_000_000 - checkpoint.steps, reset_num_timesteps=False)

    :param save_freq: calls of the callback from one checkpoint to the next; each is one step of every environment
    :param save_path: the folder for the checkpoints
    :param name_prefix: what the names of all files begin with
    :param save_replay_buffer: whether to save the replay buffer, of an algorithm that has one
    :param save_vecnormalize: whether to save the statistics of ``VecNormalize``, if there is one
    :param verbose: 2 for a line about each file
    """

    def __init__(
        self,
        save_freq: int,
        save_path: str | os.PathLike[str],
        name_prefix: str = "rl_model",
        save_replay_buffer: bool = False,
        save_vecnormalize: bool = True,
        verbose: int = 0,
    ) -> None:
        folder = os.fspath(save_path)
        super().__init__(save_freq, folder, name_prefix, save_replay_buffer, save_vecnormalize, verbose)

    @classmethod
    def latest(cls, save_path: str | os.PathLike[str], name_prefix: str = "rl_model") -> Checkpoint | None:
        """
        Find the checkpoint to continue from.

        :param save_path: as for the constructor
        :param name_prefix: as for the constructor
        :return: the checkpoint with the most steps; ``None`` if there is none
        """
        # As in SB3, the prefix may begin with a folder.
        folder, prefix = os.path.split(os.path.join(save_path, name_prefix))
        pattern = re.compile(re.escape(prefix) + r"_([0-9]+)_steps\.zip")
        models = {path: pattern.fullmatch(path.name) for path in Path(folder).glob("*.zip") if path.is_file()}
        found = {int(match[1]): path for path, match in models.items() if match}
        if not found:
            return None
        steps = max(found)
        statistics, replay_buffer = (
            Path(folder, f"{prefix}_{content}_{steps}_steps.pkl") for content in ("vecnormalize", "replay_buffer")
        )
        return Checkpoint(
            steps,
            found[steps],
            statistics if statistics.exists() else None,
            replay_buffer if replay_buffer.exists() else None,
        )

    def _on_step(self) -> bool:
        if self.n_calls % self.save_freq == 0:
            self._save_checkpoint()
        return True

    def _save_checkpoint(self) -> None:
        with ExitStack() as files:
            # Where a checkpoint of as many steps is replaced, its files must not be of different ages for long. So all
            # are written before the first gets its name. A stack is left from its end: the model gets its name last.
            for path, write in self._contents():
                if self.verbose >= 2:
                    print(f"Saving checkpoint file {path}")
                os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
                file = files.enter_context(written_whole(path))
                write(file)
                flush_to_disk(file)

    def _contents(self) -> list[tuple[str, Callable[[io.BufferedWriter], Any]]]:
        """The paths of the checkpoint's files and what writes each of them, the model first."""
        model: Any = self.model
        contents = [(checkpoint_path(self, "", "zip"), model.save)]
        if self.save_replay_buffer and getattr(model, "replay_buffer", None) is not None:
            contents.append((checkpoint_path(self, "replay_buffer_", "pkl"), model.save_replay_buffer))
        vec_normalize = model.get_vec_normalize_env()
        if self.save_vecnormalize and vec_normalize is not None:
            contents.append((checkpoint_path(self, "vecnormalize_", "pkl"), partial(pickle.dump, vec_normalize)))
        return contents

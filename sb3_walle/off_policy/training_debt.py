"""How much training the steps of plants ask for, where neither waits for the other."""

from collections.abc import Callable
from time import monotonic

from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit

from sb3_walle.user_warning import warn_user

# Less than this share of what was asked for is worth a warning.
ENOUGH = 0.9
# So long the learner may take to catch up: it may have been compiling, say.
SECONDS_TO_CATCH_UP = 30.0


class TrainingDebt:
    """
    Counts the gradient steps that are due, since ``learn()`` began.

    :param train_freq: after how many steps of each environment, or episodes, a training is due
    :param gradient_steps: gradient steps of a training; negative for as many as there were steps, as in SB3
    :param n_envs: number of environments
    :param max_replay_ratio: most gradient steps for each step of an environment, ``None`` for any number
    :param clock: tells the time in seconds
    """

    def __init__(
        self,
        train_freq: TrainFreq,
        gradient_steps: int,
        n_envs: int,
        max_replay_ratio: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._train_freq, self._gradient_steps, self._n_envs = train_freq, gradient_steps, n_envs
        self._max_replay_ratio, self._clock = max_replay_ratio, clock
        self._began_at: float | None = None
        self._is_warned = False
        #: gradient steps that have become due, and those that were made
        self.n_asked = self.n_made = 0
        self._n_steps = 0
        self._since_training = self._episodes_since_training = 0
        # Gradient steps of each training that is due.
        self._due: list[int] = []

    @property
    def next_training(self) -> int:
        """Gradient steps of the training that is due, 0 if none is."""
        return self._due[0] if self._due else 0

    def rollout_before_training(self, n_ready: int) -> TrainFreq | None:
        """
        :param n_ready: how many steps of each environment can be taken without waiting
        :return: what to take before the next training: all that is ready, and if no training is due, at least what
            makes one due; ``None`` for nothing
        """
        if self._due:
            return TrainFreq(n_ready, TrainFrequencyUnit.STEP) if n_ready else None
        if self._counts_episodes:
            return TrainFreq(self._train_freq.frequency - self._episodes_since_training, TrainFrequencyUnit.EPISODE)
        n_missing = self._train_freq.frequency - self._since_training
        return TrainFreq(max(n_ready, n_missing), TrainFrequencyUnit.STEP)

    def add_steps(self, n_steps: int, n_episodes: int) -> None:
        """
        Count what was taken.

        :param n_steps: steps of each environment
        :param n_episodes: episodes that have ended
        """
        self._n_steps += n_steps
        self._since_training += n_steps
        self._episodes_since_training += n_episodes
        frequency = self._train_freq.frequency
        if self._counts_episodes:
            if self._episodes_since_training >= frequency:
                self._ask(self._since_training)
                self._since_training = self._episodes_since_training = 0
            return
        while self._since_training >= frequency:
            self._since_training -= frequency
            self._ask(frequency)

    def forget(self) -> None:
        """Ask for no training of the steps so far."""
        self._due.clear()
        self.n_asked = self.n_made = self._n_steps = self._since_training = self._episodes_since_training = 0

    def pay(self) -> None:
        """The training that was due is made. Warns, once, if the learner stays behind."""
        self.n_made += self._due.pop(0)
        if self._began_at is None:
            self._began_at = self._clock()
        seconds = self._clock() - self._began_at
        if not self._is_warned and seconds >= SECONDS_TO_CATCH_UP and self.n_made < ENOUGH * self.n_asked:
            self._is_warned = True
            warn_user(
                f"The learner makes fewer gradient steps than train_freq and gradient_steps ask for: {self.n_made} of "
                f"{self.n_asked} after {seconds:.0f} s. The plant does not wait for it. Ask for fewer, use a smaller "
                "network or batch_size, or learner='compiled', and look at async/replay_ratio."
            )

    @property
    def _counts_episodes(self) -> bool:
        return self._train_freq.unit == TrainFrequencyUnit.EPISODE

    def _ask(self, n_steps: int) -> None:
        """A training is due after so many steps of each environment, unless that would be too much of it."""
        n_gradient_steps = self._gradient_steps if self._gradient_steps >= 0 else n_steps * self._n_envs
        most = self._max_replay_ratio
        if n_gradient_steps == 0 or (
            most is not None and self.n_asked + n_gradient_steps > most * self._n_steps * self._n_envs
        ):
            return
        self.n_asked += n_gradient_steps
        self._due.append(n_gradient_steps)

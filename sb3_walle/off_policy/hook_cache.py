"""The hooks on a policy that samplers have to have, too."""

from stable_baselines3.common.policies import BasePolicy

from sb3_walle.samplers.actors.policy_hooks import HookIds
from sb3_walle.samplers.actors.torch_policy import hooks_for_samplers

# Rollouts may be single steps, and to look for hooks takes a tenth of one.
ROLLOUTS_PER_LOOK = 100


class HookCache:
    """Looks for hooks once in a while."""

    def __init__(self) -> None:
        self._found = HookIds()
        self._n_rollouts_until_look = 0

    def look_again(self) -> None:
        """Have the next call look."""
        self._n_rollouts_until_look = 0

    def of(self, policy: BasePolicy) -> HookIds:
        """:return: its hooks that samplers have, as they were found last"""
        if self._n_rollouts_until_look == 0:
            self._found = hooks_for_samplers(policy)
            self._n_rollouts_until_look = ROLLOUTS_PER_LOOK
        self._n_rollouts_until_look -= 1
        return self._found

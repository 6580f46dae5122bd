"""Which infos callbacks need."""

from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from sb3_walle.callbacks import SafeCheckpointCallback

# None of SB3's own callbacks looks at an info that does not end an episode, nor does the one that stands in for one.
_STOCK = {value for value in vars(callbacks).values() if isinstance(value, type) and issubclass(value, BaseCallback)}
_STOCK.add(SafeCheckpointCallback)


def wants_all_infos(callback: BaseCallback) -> bool:
    """
    :param callback: a callback, with those that it calls
    :return: whether the infos of all steps should be passed on, because one of them may look at them
    """
    if type(callback) not in _STOCK:
        return True
    if isinstance(callback, ConvertCallback):
        # LogEveryNTimesteps calls a method of its own in this way.
        owner = getattr(callback.callback, "__self__", None)
        return callback.callback is not None and type(owner) not in _STOCK
    return any(wants_all_infos(inner) for inner in _called_by(callback))


def _called_by(callback: BaseCallback) -> list[BaseCallback]:
    """The callbacks that a stock callback calls, whatever it calls its attributes."""
    if isinstance(callback, CallbackList):
        return callback.callbacks
    return [value for name, value in vars(callback).items() if isinstance(value, BaseCallback) and name != "parent"]

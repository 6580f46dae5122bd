"""Which infos callbacks need."""

from stable_baselines3.common import callbacks
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback, EventCallback

# None of SB3's own callbacks looks at an info that does not end an episode.
_STOCK = {value for value in vars(callbacks).values() if isinstance(value, type) and issubclass(value, BaseCallback)}


def wants_all_infos(callback: BaseCallback | None) -> bool:
    """
    :param callback: a callback, with those that it calls
    :return: whether the infos of all steps should be passed on, because one of them may look at them
    """
    if callback is None:
        return False
    if type(callback) not in _STOCK:
        return True
    if isinstance(callback, ConvertCallback):
        return callback.callback is not None
    if isinstance(callback, CallbackList):
        return any(wants_all_infos(inner) for inner in callback.callbacks)
    if isinstance(callback, EventCallback):
        after_eval = getattr(callback, "callback_after_eval", None) or getattr(callback, "callback", None)
        return wants_all_infos(callback.callback) or wants_all_infos(after_eval)
    return False

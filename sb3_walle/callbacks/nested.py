"""Callbacks that call others."""

from stable_baselines3.common.callbacks import BaseCallback, CallbackList


def called_by(callback: BaseCallback) -> list[BaseCallback]:
    """:return: the callbacks that a stock callback calls, under any attribute"""
    if isinstance(callback, CallbackList):
        return callback.callbacks
    return [value for name, value in vars(callback).items() if isinstance(value, BaseCallback) and name != "parent"]

"""
Watches a policy as Weights & Biases does: hooks on gradients, and one on the policy that looks at its parameters. They
have functions for closures, and a module that is not there before an object of a class is made.
"""

from typing import Any, ClassVar

from stable_baselines3.common.callbacks import BaseCallback
from torch.nn import Module

torch: Any = None


class TorchHistory:
    """As wandb's, but that it logs sums rather than histograms."""

    #: what was logged
    log: ClassVar[list[tuple[str, float]]] = []

    def __init__(self) -> None:
        global torch
        import torch as imported

        torch = imported
        self._hook_handles: dict[str, Any] = {}

    def add_log_parameters_hook(self, module: Module, log_freq: int) -> None:
        def parameter_log_hook(module: Module, inputs: Any, output: Any, log_track: list[int]) -> None:
            if not log_track_update(log_track):
                return
            for name, parameter in module.named_parameters():
                self.log_tensor_stats(parameter.data.cpu(), "parameters/" + name)

        log_track = [0, log_freq]
        hook = module.register_forward_hook(lambda mod, inp, outp: parameter_log_hook(mod, inp, outp, log_track))
        self._hook_handles["parameters/"] = hook

    def add_log_gradients_hook(self, module: Module, log_freq: int) -> None:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                self._hook_variable_gradient_stats(parameter, "gradients/" + name, [0, log_freq])

    def _hook_variable_gradient_stats(self, var: Any, name: str, log_track: list[int]) -> None:
        def _callback(grad: Any, log_track: list[int]) -> None:
            if log_track_update(log_track):
                self.log_tensor_stats(grad.data, name)

        self._hook_handles[name] = var.register_hook(lambda grad: _callback(grad, log_track))

    def log_tensor_stats(self, tensor: Any, name: str) -> None:
        # In another process, there is no such module.
        assert isinstance(tensor, (torch.FloatTensor, torch.DoubleTensor))
        TorchHistory.log.append((name, float(tensor.sum())))


def log_track_update(log_track: list[int]) -> bool:
    """Count up, and say whether it is time to log."""
    log_track[0] += 1
    if log_track[0] < log_track[1]:
        return False
    log_track[0] = 0
    return True


class WatchCallback(BaseCallback):
    """As ``WandbCallback(gradient_save_freq=...)``."""

    def __init__(self, gradient_save_freq: int) -> None:
        super().__init__()
        self.gradient_save_freq = gradient_save_freq

    def _init_callback(self) -> None:
        history = TorchHistory()
        history.add_log_parameters_hook(self.model.policy, self.gradient_save_freq)
        history.add_log_gradients_hook(self.model.policy, self.gradient_save_freq)

    def _on_step(self) -> bool:
        return True

"""What makes an on-policy algorithm of SB3 an asynchronous one."""

from sb3_walle.on_policy.mixin import AsyncOnPolicyMixin

__all__ = ["AsyncOnPolicyMixin"]

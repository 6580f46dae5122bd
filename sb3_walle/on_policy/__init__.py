"""What makes an on-policy algorithm of SB3 an asynchronous one."""

from sb3_walle.on_policy.on_policy_mixin import AsyncOnPolicyMixin

__all__ = ["AsyncOnPolicyMixin"]

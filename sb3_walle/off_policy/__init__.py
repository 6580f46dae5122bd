"""What makes an off-policy algorithm of SB3 an asynchronous one."""

from sb3_walle.off_policy.off_policy_mixin import AsyncOffPolicyMixin

__all__ = ["AsyncOffPolicyMixin"]

"""Callbacks for any algorithm of SB3, asynchronous or not."""

from sb3_walle.callbacks.adaptive_trust_region import AdaptiveTrustRegion
from sb3_walle.callbacks.async_eval import AsyncEvalCallback
from sb3_walle.callbacks.checkpoints import Checkpoint, SafeCheckpointCallback

__all__ = ["AdaptiveTrustRegion", "AsyncEvalCallback", "Checkpoint", "SafeCheckpointCallback"]

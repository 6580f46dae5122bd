"""Which predictor evaluates a policy. This is the learner's side: it imports PyTorch and Stable-Baselines3."""

from inspect import signature

from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy

from sb3_walle.samplers.actors import numpy_exploring_export, numpy_export
from sb3_walle.samplers.actors.action_masks import ACTION_MASKS
from sb3_walle.samplers.actors.numpy_parts import NoNumPyVersion, check_methods
from sb3_walle.samplers.actors.numpy_predictor import NumPyPredictorSpec
from sb3_walle.samplers.actors.protocol import PredictorSpec
from sb3_walle.samplers.actors.torch_policy import dump_policy
from sb3_walle.samplers.actors.torch_predictor import TorchPredictorSpec


def predictor_spec(
    policy: BasePolicy, actor: str, deterministic: bool, random_rate: float, seed: tuple[int, ...]
) -> PredictorSpec:
    """
    :param policy: the policy as it is now
    :param actor: ``"torch"`` for SB3's policy itself in any case
    :param deterministic: as for SB3's ``predict()``
    :param random_rate: probability of random actions where it is not deterministic
    :param seed: what determines random numbers
    :return: NumPy's, where the policy is deterministic and NumPy predicts the same; or else torch's
    """
    numpy_spec = _numpy_spec(policy) if deterministic and actor != "torch" else None
    if numpy_spec is not None:
        return numpy_spec
    takes_masks = ACTION_MASKS in signature(policy.predict).parameters
    return TorchPredictorSpec(dump_policy(policy), deterministic, random_rate, policy.action_space, seed, takes_masks)


def _numpy_spec(policy: BasePolicy) -> NumPyPredictorSpec | None:
    if isinstance(policy, ActorCriticPolicy):
        try:
            check_methods(policy, ActorCriticPolicy, ("predict", "_predict", "unscale_action", "obs_to_tensor"))
            check_methods(policy.action_dist, type(policy.action_dist), ("mode",))
        except NoNumPyVersion:
            return None
        if numpy_export.why_not_numpy(policy) is not None:
            return None
        actor = numpy_export.export_numpy_actor(policy)
    else:
        if numpy_exploring_export.why_not_numpy(policy, None) is not None:
            return None
        actor = numpy_exploring_export.export_numpy_actor(policy, None)
    state = policy.state_dict()
    # Copies: training goes on. What is not there is what tells an actor how to explore.
    weights = {name: state[name].cpu().numpy().copy() for name in actor.weight_names if name in state}
    return NumPyPredictorSpec(actor, weights, policy.action_space, policy.squash_output)

"""The hyperparameters that ``sb3-walle train`` takes for an environment where the user gives none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.utils import LinearSchedule

from sb3_walle.cli.algorithms import arguments_of, is_on_policy, sb3_class, sb3_defaults
from sb3_walle.cli.arguments import UsageError
from sb3_walle.cli.environments import WrapperSpec
from sb3_walle.cli.hyperparameters import TABLE, Hyperparameters, without_version
from sb3_walle.cli.zoo import zoo_files, zoo_hyperparameters
from sb3_walle.on_policy.rollout_choice import EPISODES
from sb3_walle.on_policy.rollout_size import steps_per_env

TOTAL_TIMESTEPS = 1_000_000


@dataclass(frozen=True)
class Choice:
    """
    What a run trains with.

    :param total_timesteps: environment steps to train for, all environments together
    :param arguments: arguments of the algorithm that are not its defaults
    :param reason: which these are, and why, in one line
    :param policy: the policy; ``None`` for the one that suits the environment's observations
    :param wrappers: wrappers around each environment, from the inside to the outside
    :param frame_stack: observations that the policy sees at once; ``None`` for one alone
    """

    total_timesteps: int
    arguments: Mapping[str, Any]
    reason: str
    policy: str | None = None
    wrappers: tuple[WrapperSpec, ...] = ()
    frame_stack: int | None = None


def choose_hyperparameters(
    algorithm: str, env_id: str, n_envs: int | None, given: Mapping[str, Any], plain: bool
) -> Choice:
    """
    Take the hyperparameters that suit the environment, but for what the user gives.

    :param algorithm: one of :data:`~sb3_walle.cli.arguments.TRAINABLE`
    :param n_envs: number of environments, if the user gives one
    :param given: what else the user gives: arguments of the algorithm, and ``timesteps``
    :param plain: whether to take SB3's defaults for any environment
    :raises UsageError: if the algorithm has no such argument
    """
    own = dict(given)
    total_timesteps = own.pop("timesteps", None)
    for name in own.keys() - arguments_of(algorithm):
        raise UsageError(f"--{name.replace('_', '-')} is no option of {sb3_class(algorithm).__name__}")
    but = f", but for {in_words(own)}" if own else ""
    known = None if plain else known_hyperparameters(algorithm, env_id)
    if known is None:
        why = "as --plain says" if plain else _why_none_are_known(env_id)
        arguments = own if n_envs is None else {**own, "n_envs": n_envs}
        return Choice(total_timesteps or TOTAL_TIMESTEPS, arguments, f"SB3's defaults{but}, {why}")
    n_envs = n_envs or known.n_envs
    is_whole = own.get("rollout") == EPISODES
    # target_steps takes its place, and is a number of all environments together.
    of_known = {name: value for name, value in known.arguments.items() if not (is_whole and name == "n_steps")}
    arguments = {"n_envs": n_envs, **of_known, **own}
    if not is_whole and (n_envs != known.n_envs or "batch_size" in own):
        arguments |= _for_n_envs(algorithm, {**sb3_defaults(algorithm), **arguments}, known.n_envs, own)
    without = f", without its {' and '.join(known.left_out)}" if known.left_out else ""
    around = [*(wrapper.class_name for wrapper in known.wrappers)]
    around += [f"VecFrameStack({known.frame_stack})"] if known.frame_stack else []
    wrapped = f", in {', '.join(around)}" if around else ""
    reason = f"for {env_id} from {known.source}{without}{but} (--plain takes SB3's defaults): "
    reason += f"{in_words(arguments)}{wrapped}"
    steps = total_timesteps or known.total_timesteps
    return Choice(steps, arguments, reason, known.policy, known.wrappers, known.frame_stack)


def known_hyperparameters(algorithm: str, env_id: str) -> Hyperparameters | None:
    """:return: our own, or else those of the RL Zoo; ``None`` if there are none"""
    own = TABLE.get(without_version(env_id)) if algorithm == "ppo" else None
    return own or zoo_hyperparameters(algorithm, env_id)


def _why_none_are_known(env_id: str) -> str:
    if zoo_files() is None:
        return (
            f"for 'sb3-walle train' knows no better ones for {env_id}; the RL Zoo, which has many, is not installed "
            "(pip install rl_zoo3)"
        )
    return f"for neither 'sb3-walle train' nor the RL Zoo knows better ones for {env_id}"


def _for_n_envs(
    algorithm: str, arguments: Mapping[str, Any], n_envs_before: int, given: Mapping[str, Any]
) -> dict[str, Any]:
    """
    What keeps updates as they are with another number of environments, unless the user gives it.

    :param arguments: all arguments of the algorithm, and ``n_envs``
    :param n_envs_before: number of environments that they are for
    """
    n_envs = arguments["n_envs"]
    if is_on_policy(algorithm):
        if "n_steps" in given:
            return {}
        batch_size = arguments.get("batch_size", 1)
        n_steps = steps_per_env(n_envs_before * arguments["n_steps"], n_envs, batch_size)
        too_large = "batch_size" in arguments and "batch_size" not in given and n_steps * n_envs < batch_size
        return {"n_steps": n_steps, **({"batch_size": n_steps * n_envs} if too_large else {})}
    train_freq, gradient_steps = arguments["train_freq"], arguments["gradient_steps"]
    if {"train_freq", "gradient_steps"} & given.keys() or not isinstance(train_freq, int):
        return {}
    # As many gradient steps for as many steps of environments. -1 says that itself.
    n_steps = max(1, round(train_freq * n_envs_before / n_envs))
    samples, samples_before = n_steps * n_envs, train_freq * n_envs_before
    scaled = gradient_steps if gradient_steps < 0 else max(1, round(gradient_steps * samples / samples_before))
    return {"train_freq": n_steps, "gradient_steps": scaled}


def in_words(arguments: Mapping[str, Any]) -> str:
    """:return: arguments as they stand in a call"""
    return ", ".join(f"{name}={_value(value)}" for name, value in arguments.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"dict({in_words(value)})"
    if isinstance(value, LinearSchedule):
        return f"LinearSchedule({value.start}, {value.end}, {value.end_fraction})"
    return getattr(value, "__name__", repr(value))

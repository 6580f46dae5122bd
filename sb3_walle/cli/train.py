"""``sb3-walle train``"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sb3_walle.cli.arguments import (
    BACKENDS,
    INTERRUPTED,
    LEARNERS,
    MODES,
    ROLLOUTS,
    TRAINABLE,
    add_env,
    add_n_learners,
    add_option,
    add_ppo_options,
    integer,
    number,
    of_the_user,
    set_command,
)

if TYPE_CHECKING:
    from sb3_walle.cli.environments import WrapperSpec

# What is neither an argument of the algorithm nor of the training's length.
OF_THE_COMMAND = ("env", "algo", "policy", "run_dir", "plain", "video", "timeline", "n_envs", "observe_last_action")
# Arguments of the algorithm that do not depend on what suits the environment. All others are hyperparameters.
OF_THE_MACHINERY = (
    "seed",
    "device",
    "n_samplers",
    "envs_per_sampler",
    "mode",
    "max_policy_lag",
    "control_hz",
    "fallback_action",
    "actor",
    "backend",
    "learner",
    "n_learners",
)

EXAMPLE = """\
example:
  sb3-walle train HalfCheetah-v4 --n-samplers 10
  sb3-walle train Pendulum-v1 --algo sac
  sb3-walle train CartPole-v1 --plain --timesteps 1e5
  sb3-walle train Hopper-v4 --algo trpo --rollout episodes --target-steps 20_000
  sb3-walle train MyRobot-v0 --algo sac --mode realtime --control-hz 50 --fallback-action hold
"""
REALTIME = "realtime"
MODES_OF_TRAINING = {**MODES, REALTIME: "the environment, a robot say, never waits (SAC, TD3, DDPG, DQN, TQC)"}


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train an algorithm and leave a run directory",
        description="Train an algorithm on an environment, with hyperparameters that are known to learn it where\n"
        "there are some: a small table of our own, or the RL Zoo's files (pip install rl_zoo3).\n"
        "Leaves a directory with model.zip (which SB3 loads), progress.csv, TensorBoard events,\n"
        "settings.json, learning_curve.png and video.mp4, and prints how to load and evaluate the\n"
        "model. Ctrl-C ends the training early and saves what there is.",
        epilog=EXAMPLE,
    )
    set_command(parser, run_command)
    add_env(parser)

    run = parser.add_argument_group("run")
    add_option(run, "--algo", "ppo", "algorithm", choices=TRAINABLE)
    text = "environment steps to train for, all environments together"
    add_option(run, "--timesteps", 1_000_000, text, only_given=True, type=integer(1))
    text = "seed of the pseudo-random generators (default: none)"
    add_option(run, "--seed", None, text, type=integer(0))
    add_option(run, "--device", "auto", "PyTorch device of the learner", metavar="NAME")
    add_option(run, "--run-dir", Path("runs"), "where to make the run's directory", type=Path, metavar="DIR")
    text = "also leave timeline.json (for ui.perfetto.dev) and timeline.png: who waits for whom"
    run.add_argument("--timeline", action="store_true", help=text)
    text = "leave a video of ten seconds of the trained agent"
    run.add_argument("--video", action=argparse.BooleanOptionalAction, default=True, help=text)

    samplers = parser.add_argument_group("samplers")
    text = "environments of all samplers (default: what suits the environment; else one for each sampler)"
    add_option(samplers, "--n-envs", None, text, type=integer(1))
    text = "sampler processes (default: as many as hold these environments best; else one for each CPU)"
    add_option(samplers, "--n-samplers", None, text, type=integer(1))
    text = "environments that each sampler steps (default: what follows from the other two)"
    add_option(samplers, "--envs-per-sampler", None, text, type=integer(1))
    text = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES_OF_TRAINING.items())
    text = f"{text} (default: sync for A2C and TRPO, pipelined for others)"
    add_option(samplers, "--mode", None, text, choices=MODES_OF_TRAINING)
    text = "updates that experience may be old by, with --mode free (default: 1)"
    add_option(samplers, "--max-policy-lag", None, text, type=integer(1))
    text = "what computes the samplers' actions; auto: numpy where the policy allows it"
    add_option(samplers, "--actor", "auto", text, choices=("auto", "torch", "numpy"))

    text = "where samplers live: processes of this machine, this process, or the nodes of a Ray cluster"
    add_option(samplers, "--backend", "process", text, choices=BACKENDS)

    add_realtime_options(parser)

    learner = parser.add_argument_group("learner")
    text = (
        "eager: SB3's own update; compiled: the same as machine code, several times faster, from the start; "
        "auto: compiled as soon as that is ready and pays"
    )
    add_option(learner, "--learner", "auto", text, choices=LEARNERS)
    add_n_learners(learner)

    text = "An option that is given wins over what is known to suit the environment. The defaults shown\n"
    text += "are those of SB3's PPO, for all other environments."
    ppo = parser.add_argument_group("hyperparameters", text)
    text = "SB3's defaults, instead of what is known to suit the environment"
    ppo.add_argument("--plain", action="store_true", help=text)
    policies = [f"{kind}{memory}Policy" for memory in ("", "Lstm") for kind in ("Mlp", "Cnn", "MultiInput")]
    text = "policy network; recurrent_ppo has those with an LSTM (default: what suits the observations)"
    add_option(ppo, "--policy", None, text, choices=policies)
    text = "steps of each environment in an iteration"
    add_option(ppo, "--n-steps", 2048, text, only_given=True, type=integer(1))
    text = "what an iteration collects: --n-steps of each environment, or whole episodes"
    add_option(ppo, "--rollout", "steps", text, only_given=True, choices=ROLLOUTS)
    text = "with --rollout episodes, about how many steps an iteration has, all environments together"
    add_option(ppo, "--target-steps", None, text, only_given=True, type=integer(1))
    text = "with --rollout episodes, steps of an episode at most (default: the environment's limit, or --target-steps)"
    add_option(ppo, "--max-episode-steps", None, text, only_given=True, type=integer(1))
    add_ppo_options(ppo)
    text = "what PPO's update improves; kl_penalty: the WALL-E report's, with a penalty on the divergence"
    add_option(ppo, "--objective", "clip", text, only_given=True, choices=("clip", "kl_penalty"))
    text = "whose numbers --objective kl_penalty has: the report's (default) or Hafner et al.'s"
    add_option(ppo, "--preset", None, text, only_given=True, choices=("report", "batchppo"))
    text = "normalise observations and rewards (VecNormalize), and save the statistics beside the model (default: no)"
    ppo.add_argument("--normalize", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)


def add_realtime_options(parser: argparse.ArgumentParser) -> None:
    text = "With --mode realtime. No video is made: the robot would move once more, and unattended."
    realtime = parser.add_argument_group("real time", text)
    text = "actions a second (default: the environment keeps time itself)"
    add_option(realtime, "--control-hz", None, text, only_given=True, type=number(0, above=True))
    text = (
        "what the robot gets when training ends or fails: hold, for the last action once more, or the numbers of an "
        "action with commas, as in --fallback-action=-0.5,0"
    )
    add_option(realtime, "--fallback-action", None, text, only_given=True, type=fallback_action, metavar="ACTION")
    text = "actions that the observation includes, for robots with a delay; in any mode (default: none)"
    add_option(realtime, "--observe-last-action", None, text, type=integer(1))


def fallback_action(text: str) -> str | list[float]:
    """The type of an argument that is ``hold`` or an action."""
    if text == "hold":
        return text
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is neither hold nor numbers with commas between them") from None


def run_command(arguments: argparse.Namespace) -> int:
    from sb3_walle.cli.extras import require_extra

    # Before hours of training, not at their end.
    require_extra("a training run", "matplotlib", "rich", "tensorboard", "tqdm")
    from sb3_walle.cli.hyperparameter_choice import choose_hyperparameters
    from sb3_walle.cli.training import TrainingSettings, train
    from sb3_walle.cli.training_summary import training_summary

    machinery = {name: getattr(arguments, name) for name in OF_THE_MACHINERY if hasattr(arguments, name)}
    given = {name: value for name, value in of_the_user(arguments).items() if name not in (*OF_THE_COMMAND, *machinery)}
    chosen = choose_hyperparameters(arguments.algo, arguments.env, n_envs_of(arguments), given, arguments.plain)
    settings = TrainingSettings(
        env_id=arguments.env,
        total_timesteps=chosen.total_timesteps,
        algo=arguments.algo,
        policy=arguments.policy or chosen.policy,
        wrappers=(*chosen.wrappers, *last_actions(arguments.observe_last_action)),
        frame_stack=chosen.frame_stack,
        runs=arguments.run_dir,
        algorithm={**machinery, **chosen.arguments},
        reason=chosen.reason,
        timeline=arguments.timeline,
        video=arguments.video and arguments.mode != REALTIME,
    )
    outcome = train(settings)
    print(training_summary(settings, outcome))
    return INTERRUPTED if outcome.interrupted else 0


def last_actions(n_actions: int | None) -> "tuple[WrapperSpec, ...]":
    """:return: what has the observation include so many actions"""
    from sb3_walle.cli.environments import WrapperSpec

    return () if n_actions is None else (WrapperSpec("sb3_walle.LastActionsObservation", {"n_actions": n_actions}),)


def n_envs_of(arguments: argparse.Namespace) -> int | None:
    """:return: how many environments the user asks for, ``None`` if she leaves that open"""
    from sb3_walle.backends.limits import available_cpus

    if arguments.n_envs is not None:
        return arguments.n_envs
    if arguments.mode == REALTIME:
        # One for each robot.
        return arguments.n_samplers or 1
    if arguments.n_samplers is None and arguments.envs_per_sampler is None:
        return None
    return (arguments.n_samplers or available_cpus()) * (arguments.envs_per_sampler or 1)

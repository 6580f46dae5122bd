"""``sb3-walle train``"""

import argparse
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import (
    BACKENDS,
    INTERRUPTED,
    LEARNERS,
    MODES,
    add_env,
    add_option,
    add_ppo_options,
    integer,
    of_the_user,
    set_command,
)

# What is neither an argument of AsyncPPO nor of the training's length.
OF_THE_COMMAND = ("env", "policy", "run_dir", "plain", "timeline")
# Arguments of AsyncPPO that do not depend on what suits the environment. All others are hyperparameters.
OF_THE_MACHINERY = (
    "seed",
    "device",
    "n_samplers",
    "envs_per_sampler",
    "mode",
    "max_policy_lag",
    "actor",
    "backend",
    "learner",
)

EXAMPLE = """\
example:
  sb3-walle train HalfCheetah-v4 --n-samplers 10
  sb3-walle train CartPole-v1 --plain --timesteps 1e5
"""


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train AsyncPPO and leave a run directory",
        description="Train AsyncPPO on an environment, with hyperparameters that are known to learn it where\n"
        "there are some. Leaves a directory with model.zip (which SB3's PPO.load reads),\n"
        "progress.csv, TensorBoard events, settings.json and learning_curve.png, and prints how to\n"
        "load and evaluate the model. Ctrl-C ends the training early and saves what there is.",
        epilog=EXAMPLE,
    )
    set_command(parser, run_command)
    add_env(parser)

    run = parser.add_argument_group("run")
    text = "environment steps to train for, all environments together"
    add_option(run, "--timesteps", 1_000_000, text, only_given=True, type=integer(1))
    text = "seed of the pseudo-random generators (default: none)"
    add_option(run, "--seed", None, text, type=integer(0))
    add_option(run, "--device", "auto", "PyTorch device of the learner", metavar="NAME")
    add_option(run, "--run-dir", Path("runs"), "where to make the run's directory", type=Path, metavar="DIR")
    text = "also leave timeline.json (for ui.perfetto.dev) and timeline.png: who waits for whom"
    run.add_argument("--timeline", action="store_true", help=text)

    samplers = parser.add_argument_group("samplers")
    text = "sampler processes (default: the CPUs that this process may use)"
    add_option(samplers, "--n-samplers", None, text, type=integer(1))
    add_option(samplers, "--envs-per-sampler", 1, "environments that each sampler steps", type=integer(1))
    text = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    add_option(samplers, "--mode", "pipelined", text, choices=MODES)
    text = "updates that experience may be old by, with --mode free (default: 1)"
    add_option(samplers, "--max-policy-lag", None, text, type=integer(1))
    text = "what computes the samplers' actions; auto: numpy where the policy allows it"
    add_option(samplers, "--actor", "auto", text, choices=("auto", "torch", "numpy"))

    text = "where samplers live: processes of this machine, this process, or the nodes of a Ray cluster"
    add_option(samplers, "--backend", "process", text, choices=BACKENDS)

    learner = parser.add_argument_group("learner")
    text = (
        "eager: SB3's own update; compiled: the same as machine code, several times faster, from the start; "
        "auto: compiled as soon as that is ready and pays"
    )
    add_option(learner, "--learner", "auto", text, choices=LEARNERS)

    text = "An option that is given wins over what is known to suit the environment. The defaults shown\n"
    text += "are those of SB3's PPO, for all other environments."
    ppo = parser.add_argument_group("PPO", text)
    text = "SB3's defaults, instead of what is known to suit the environment"
    ppo.add_argument("--plain", action="store_true", help=text)
    policies = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
    add_option(ppo, "--policy", "MlpPolicy", "policy network", choices=policies)
    text = "steps of each environment in an iteration"
    add_option(ppo, "--n-steps", 2048, text, only_given=True, type=integer(1))
    add_ppo_options(ppo)
    text = "normalise observations and rewards (VecNormalize), and save the statistics beside the model (default: no)"
    ppo.add_argument("--normalize", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)


def run_command(arguments: argparse.Namespace) -> int:
    from sb3_walle.cli.extras import require_extra

    # Before hours of training, not at their end.
    require_extra("a training run", "matplotlib", "rich", "tensorboard", "tqdm")
    from sb3_walle.backends.limits import available_cpus
    from sb3_walle.cli.hyperparameters import choose_hyperparameters
    from sb3_walle.cli.training import TrainingSettings, train
    from sb3_walle.cli.training_summary import training_summary

    n_envs = (arguments.n_samplers or available_cpus()) * arguments.envs_per_sampler
    machinery = {name: getattr(arguments, name) for name in OF_THE_MACHINERY}
    given = {name: value for name, value in of_the_user(arguments).items() if name not in (*OF_THE_COMMAND, *machinery)}
    chosen = choose_hyperparameters(arguments.env, n_envs, given, arguments.plain)
    settings = TrainingSettings(
        env_id=arguments.env,
        total_timesteps=chosen.total_timesteps,
        policy=arguments.policy,
        runs=arguments.run_dir,
        algorithm={**machinery, **chosen.arguments},
        reason=chosen.reason,
        timeline=arguments.timeline,
    )
    outcome = train(settings)
    print(training_summary(settings, outcome))
    return INTERRUPTED if outcome.interrupted else 0

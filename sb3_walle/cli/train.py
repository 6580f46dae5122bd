"""``sb3-walle train``"""

import argparse
from pathlib import Path
from typing import Any

from sb3_walle.cli.arguments import INTERRUPTED, LEARNERS, MODES, add_option, add_ppo_options, integer

EXAMPLE = """\
example:
  sb3-walle train HalfCheetah-v4 --n-samplers 10 --timesteps 1e6
"""


def add_command(commands: Any) -> None:
    """
    Describe ``sb3-walle train``.

    :param commands: the subparsers to add it to
    """
    parser = commands.add_parser(
        "train",
        help="train AsyncPPO and leave a run directory",
        description="Train AsyncPPO on an environment. Leaves a directory with model.zip (which SB3's\n"
        "PPO.load reads), progress.csv, TensorBoard events, settings.json and\n"
        "learning_curve.png. Ctrl-C ends the training early and saves what there is.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run_command)
    parser.add_argument("env", metavar="ENV", help="Gymnasium id of the environment")

    run = parser.add_argument_group("run")
    text = "environment steps to train for, all environments together"
    add_option(run, "--timesteps", 1_000_000, text, type=integer(1))
    text = "seed of the pseudo-random generators (default: none)"
    add_option(run, "--seed", None, text, type=integer(0), metavar="N")
    add_option(run, "--device", "auto", "PyTorch device of the learner", metavar="NAME")
    add_option(run, "--run-dir", Path("runs"), "where to make the run's directory", type=Path, metavar="DIR")

    samplers = parser.add_argument_group("samplers")
    text = "sampler processes (default: the CPUs that this process may use)"
    add_option(samplers, "--n-samplers", None, text, type=integer(1), metavar="N")
    add_option(samplers, "--envs-per-sampler", 1, "environments that each sampler steps", type=integer(1))
    text = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    add_option(samplers, "--mode", "pipelined", text, choices=MODES, metavar="{" + ",".join(MODES) + "}")
    text = "updates that experience may be old by, with --mode free (default: 1)"
    add_option(samplers, "--max-policy-lag", None, text, type=integer(1), metavar="N")
    text = "what computes the samplers' actions; auto: numpy where the policy allows it"
    add_option(samplers, "--actor", "auto", text, choices=("auto", "torch", "numpy"), metavar="{auto,torch,numpy}")

    learner = parser.add_argument_group("learner")
    text = (
        "eager: SB3's own update; compiled: the same as machine code, several times faster, from the start; "
        "auto: compiled as soon as that is ready and pays"
    )
    add_option(learner, "--learner", "auto", text, choices=LEARNERS, metavar="{" + ",".join(LEARNERS) + "}")

    ppo = parser.add_argument_group("PPO", "The defaults are those of SB3's PPO.")
    policies = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
    add_option(ppo, "--policy", "MlpPolicy", "policy network", choices=policies, metavar="{" + ",".join(policies) + "}")
    add_option(ppo, "--n-steps", 2048, "steps of each environment in an iteration", type=integer(1))
    add_ppo_options(ppo)
    text = "normalise observations and rewards (VecNormalize), and save the statistics beside the model"
    ppo.add_argument("--normalize", action="store_true", help=text)


def run_command(arguments: argparse.Namespace) -> int:
    """
    Train as the arguments say.

    :param arguments: the parsed command line
    :return: exit code
    """
    from sb3_walle.experiments.training import TrainingSettings, train

    algorithm = dict(vars(arguments))
    settings = TrainingSettings(
        env_id=algorithm.pop("env"),
        total_timesteps=algorithm.pop("timesteps"),
        policy=algorithm.pop("policy"),
        runs=algorithm.pop("run_dir"),
        algorithm={name: value for name, value in algorithm.items() if name not in ("command", "run")},
    )
    outcome = train(settings)
    ended = "Interrupted" if outcome.interrupted else "Finished"
    print(f"{ended} after {outcome.timesteps:,} timesteps. The model, the log and the learning curve are in")
    print(f"  {outcome.directory}")
    return INTERRUPTED if outcome.interrupted else 0

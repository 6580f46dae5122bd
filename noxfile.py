"""
The core of the tests with the lowest and the newest versions of what the package needs: ``make test-versions``.

``TEST_PYTHONS`` has the versions of Python, and ``TEST_TORCH`` the requirement for PyTorch: the package index decides
which builds of PyTorch there are, for which processors and how large.
"""

import os
import sys

import nox

PYTHONS = os.environ.get("TEST_PYTHONS", "{}.{}".format(*sys.version_info)).split()
TORCH = os.environ.get("TEST_TORCH", "torch")
TEST_TOOLS = ("hypothesis", "pytest", "pytest-timeout")
# Lower bounds of pyproject.toml. Gymnasium 0.29 is older than MuJoCo 3.
LOWEST = ("stable-baselines3==2.7.0", "gymnasium[mujoco]==0.29.1", "mujoco<3", "numpy==1.26.*")
CORE = (
    "tests/test_architecture.py",
    "tests/algorithm/test_ppo_oracle.py",
    "tests/collection/test_modes.py",
    "tests/samplers/actors/test_numpy_actor.py",
    "tests/envs/test_normalization.py",
    "tests/envs/test_vec_env.py",
    "tests/off_policy/test_off_policy_oracle.py",
    "tests/off_policy/test_streams.py",
    "tests/updates/test_same_numbers.py",
    "tests/samplers/test_sampler.py",
)

nox.options.error_on_missing_interpreters = True


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest versions that the bounds of pyproject.toml allow."""
    session.install(TORCH, ".", *TEST_TOOLS)
    run_core(session)


@nox.session(python=PYTHONS)
def lowest(session: nox.Session) -> None:
    """The lowest versions that the bounds of pyproject.toml allow."""
    session.install(TORCH, ".", *LOWEST, *TEST_TOOLS)
    run_core(session)


def run_core(session: nox.Session) -> None:
    """Show the versions and run the tests."""
    session.run("pip", "list", "--disable-pip-version-check", silent=False)
    session.run("python", "-m", "pytest", *CORE, *session.posargs, env={"OMP_NUM_THREADS": "1"})

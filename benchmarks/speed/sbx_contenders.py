"""SBX, SB3's algorithms in JAX (https://github.com/araffin/sbx), as contenders."""

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.contenders import Trainee, VecEnvContender
from sb3_walle.cli.arguments import UsageError

SBX = "SBX"


def sbx_trainees(trainees: Iterable[Trainee]) -> list[Trainee]:
    """
    :param trainees: contenders, SB3's among them
    :return: SBX's algorithm with the arguments of SB3's, for each ``DummyVecEnv``
    :raises UsageError: if SBX is not installed
    """
    try:
        import sbx
    except ImportError as error:
        raise UsageError("--sbx needs a package that is not installed: pip install sbx-rl") from error
    found = []
    for trainee in trainees:
        sb3s = trainee.contender
        if isinstance(sb3s, VecEnvContender) and sb3s.vec_env == "DummyVecEnv":
            contender = replace(sb3s, algorithm=getattr(sbx, sb3s.algorithm.__name__), library=SBX)
            found.append(replace(trainee, name=contender.name, contender=contender))
    return found

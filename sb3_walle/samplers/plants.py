"""Which environments of a sampler are plants: mode "realtime"."""

from sb3_walle.realtime.plant import Plant
from sb3_walle.realtime.settings import RealtimeSettings
from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.layers import InnermostEnvs


def plants_of(envs: InnermostEnvs, settings: RealtimeSettings | None) -> list[Plant]:
    """
    :param envs: the environments of a sampler
    :param settings: how they are acted on in real time, ``None`` if they wait for the sampler
    :return: what steps each environment in real time from now on; nothing if they wait
    """
    if not isinstance(envs, SamplerEnvs):
        return []
    if settings is None:
        envs.as_environments()
        return []
    return envs.as_plants(settings)

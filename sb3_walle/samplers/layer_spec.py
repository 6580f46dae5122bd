"""How to build what is around a sampler's environments."""

from typing import Protocol

from sb3_walle.samplers.envs import SamplerEnvs
from sb3_walle.samplers.layers import EnvLayer


class LayerSpec(Protocol):
    """How to build a layer. Made by the learner, pickled, built in the sampler."""

    def build(self, inner: EnvLayer, envs: SamplerEnvs) -> EnvLayer:
        """
        :param inner: the layer below, which continues from where it is
        :param envs: the environments at the bottom
        :return: the layer around it
        """

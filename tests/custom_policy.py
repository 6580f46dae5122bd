"""A policy class of a user's own, as in SB3's documentation."""

from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn


class TwoNetworks(nn.Module):
    """In place of SB3's ``MlpExtractor``."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = 6, 4
        self.policy_net = nn.Sequential(nn.Linear(n_features, self.latent_dim_pi), nn.ReLU())
        self.value_net = nn.Sequential(nn.Linear(n_features, self.latent_dim_vf), nn.ReLU())

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.policy_net(features)

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.value_net(features)


class CustomPolicy(ActorCriticPolicy):
    """A policy class of a user's own, as in SB3's documentation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "ortho_init": False})

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = TwoNetworks(self.features_dim)

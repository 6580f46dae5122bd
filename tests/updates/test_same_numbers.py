"""A traced update gives the numbers of SB3's ``PPO.train()``, within rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from custom_policy import CustomPolicy
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn
from update_pairs import (
    BATCH_NORM,
    BOX,
    TOLERANCE,
    VECTOR,
    LinearExtractor,
    Pair,
    TracedUpdates,
    collect,
    gradients,
    logged,
    made,
    share_rollout,
    state_of,
)

from sb3_walle import NonFiniteError
from sb3_walle.updates.finite import finite_updates
from sb3_walle.updates.program_compiler import Program
from sb3_walle.updates.unsupported import Unsupported

IMAGE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
DICTIONARY = spaces.Dict({"place": VECTOR, "kind": spaces.Discrete(4), "flags": spaces.MultiBinary(2)})


class SpectralPolicy(ActorCriticPolicy):
    """Its weights are computed from others, and from buffers that change with each forward pass in training."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        nn.utils.parametrizations.spectral_norm(self.mlp_extractor.policy_net[0])


class CountingPolicy(ActorCriticPolicy):
    """Replaces a buffer of its own with another tensor at each evaluation."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("count", th.zeros(()))
        self.register_buffer("constant", th.ones(2))

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        self.count = self.count + 1
        return super().evaluate_actions(obs, actions)


class OwnCriticPolicy(ActorCriticPolicy):
    """Its values come from a module that has not the name of SB3's; the latter is never called."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.critic = nn.Linear(self.features_dim, 1)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def evaluate_actions(self, obs: Any, actions: th.Tensor) -> Any:
        _, log_prob, entropy = super().evaluate_actions(obs, actions)
        return self.critic(obs), log_prob, entropy


# Policies

POLICIES: dict[str, tuple[Any, spaces.Space, spaces.Space, dict[str, Any]]] = {
    "Discrete": ("MlpPolicy", spaces.Discrete(4), spaces.Discrete(3), {}),
    "MultiDiscrete": ("MlpPolicy", spaces.MultiDiscrete([3, 2]), spaces.MultiDiscrete([3, 2]), {}),
    "MultiBinary": ("MlpPolicy", spaces.MultiBinary(3), spaces.MultiBinary(3), {}),
    "float64 observations, actions of several axes": (
        "MlpPolicy",
        spaces.Box(-1.0, 1.0, (3,), np.float64),
        spaces.Box(-1.0, 1.0, (2, 2), np.float32),
        {},
    ),
    "dictionaries": ("MultiInputPolicy", DICTIONARY, BOX, {}),
    "dictionaries with images": (
        "MultiInputPolicy",
        spaces.Dict({"image": IMAGE, "place": VECTOR}),
        spaces.Discrete(3),
        {"features_extractor_kwargs": {"cnn_output_dim": 8}},
    ),
    "net_arch, nothing": ("MlpPolicy", VECTOR, BOX, {"net_arch": []}),
    "activation_fn with a parameter": ("MlpPolicy", VECTOR, BOX, {"activation_fn": nn.PReLU}),
    "policy of ones own": (CustomPolicy, VECTOR, BOX, {"ortho_init": False}),
    "critic of ones own": (OwnCriticPolicy, VECTOR, BOX, {}),
    "parametrization": (SpectralPolicy, VECTOR, BOX, {"ortho_init": False}),
    "buffer of ones own": (CountingPolicy, VECTOR, BOX, {}),
    "extractor of ones own": ("MlpPolicy", VECTOR, BOX, {"features_extractor_class": LinearExtractor}),
    "two extractors": (
        "MlpPolicy",
        VECTOR,
        BOX,
        {"features_extractor_class": LinearExtractor, "share_features_extractor": False},
    ),
    "two batch normalizations": ("MlpPolicy", VECTOR, BOX, {**BATCH_NORM, "share_features_extractor": False}),
}


@pytest.mark.parametrize("name", POLICIES)
def test_policies(name: str) -> None:
    policy, observation_space, action_space, kwargs = POLICIES[name]
    Pair(policy, observation_space, action_space, policy_kwargs=kwargs).train()


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"squash_output": True, "use_expln": True, "full_std": False, "log_std_init": -2.0},
        {"full_std": False, "net_arch": []},
    ],
    ids=["default", "squash_output, use_expln and not full_std", "not full_std"],
)
def test_state_dependent_exploration(kwargs: dict[str, Any]) -> None:
    Pair(use_sde=True, policy_kwargs=kwargs).train()


def test_running_statistics_change() -> None:
    """Otherwise that they agree would say nothing."""
    pair = Pair(policy_kwargs=BATCH_NORM)
    before = state_of(pair.model)["policy"]
    pair.train(1)
    after = pair.model.policy.state_dict()
    names = [name for name in before if "running" in name or "num_batches" in name]
    assert names and all(not th.equal(before[name], after[name]) for name in names)


def freeze(model: PPO) -> None:
    for parameter in model.policy.mlp_extractor.policy_net[0].parameters():
        parameter.requires_grad_(False)


def test_frozen_parameters_stay_as_they_are() -> None:
    pair = Pair(prepare=freeze)
    before = state_of(pair.model)["policy"]
    pair.train()
    after = pair.model.policy.state_dict()
    name = "mlp_extractor.policy_net.0.weight"
    assert th.equal(before[name], after[name])


def train_then_freeze(model: PPO) -> None:
    np.random.seed(0)
    model.train()
    collect(model)
    freeze(model)


def test_parameters_that_are_frozen_after_some_updates_keep_no_gradient() -> None:
    """SB3 forgets all gradients before it computes new ones, also those that it will not compute again."""
    pair = Pair(prepare=train_then_freeze).train()
    assert gradients(pair.model)["mlp_extractor.policy_net.0.weight"] is None


def test_frozen_parameters_may_be_changed_between_updates() -> None:
    pair = Pair(prepare=freeze).train(1)
    for model in (pair.oracle, pair.model):
        with th.no_grad():
            model.policy.mlp_extractor.policy_net[0].bias.add_(0.3)
    pair.train(1)


# Options

OPTIONS: dict[str, dict[str, Any]] = {
    "clip_range_vf": {"clip_range_vf": 0.05},
    "schedules": {
        "clip_range": lambda remaining: 0.3 * remaining,
        "clip_range_vf": lambda remaining: 0.1 * remaining,
        "learning_rate": lambda remaining: 1e-3 * remaining,
    },
    "narrow clip_range": {"clip_range": 0.001, "learning_rate": 3e-3},
    "ent_coef, vf_coef and not normalize_advantage": {"ent_coef": 0.3, "vf_coef": 2.5, "normalize_advantage": False},
    "no vf_coef": {"vf_coef": 0.0},
    "small max_grad_norm": {"max_grad_norm": 0.01},
    "no gradient clipping": {"max_grad_norm": np.inf},
    "no gradient": {"max_grad_norm": 0.0},
    "truncated last minibatch": {"batch_size": 20},
    "last minibatch of one sample": {"batch_size": 47},
    "minibatches of one sample": {"batch_size": 1, "normalize_advantage": False, "n_epochs": 1},
    "batch_size larger than a rollout": {"batch_size": 1000},
    "target_kl that is never reached": {"target_kl": 10.0},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str) -> None:
    Pair(**OPTIONS[name]).train()


def test_clipping_takes_place() -> None:
    """Otherwise that clipped objectives agree would say nothing."""
    pair = Pair(**OPTIONS["narrow clip_range"], clip_range_vf=0.01).train()
    assert 0 < logged(pair.model)["train/clip_fraction"] < 1


# The first minibatch of an update, one in the first epoch, and one in a later one.
@pytest.mark.parametrize(
    ("target_kl", "kwargs"),
    [(-1.0, {}), (0.0005, {}), (0.005, {}), (0.002, BATCH_NORM)],
    ids=["at once", "in the first epoch", "in a later epoch", "batch normalization"],
)
def test_updates_stop_early_at_the_same_minibatch(
    target_kl: float, kwargs: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``verbose``, SB3 says in which epoch."""
    settings = {"target_kl": target_kl, "learning_rate": 5e-3, "n_epochs": 6, "verbose": 1, "policy_kwargs": kwargs}
    pair = Pair(**settings)
    pair.model.logger.output_formats = pair.oracle.logger.output_formats = []
    capsys.readouterr()
    pair.train(3)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Early stopping")]
    assert lines[::2] == lines[1::2] and len(lines) == 6
    assert pair.updates.n_minibatches > 0


def test_what_is_logged_has_the_types_that_sb3_logs() -> None:
    """Loggers print some types of numbers to three digits, and others to all of them."""
    pair = Pair().train(1)
    found, expected = logged(pair.model), logged(pair.oracle)
    assert {name: type(value) for name, value in found.items()} == {
        name: type(value) for name, value in expected.items()
    }
    assert pair.model.logger.name_to_excluded == pair.oracle.logger.name_to_excluded


# Optimizers

OPTIMIZERS: dict[str, tuple[type[th.optim.Optimizer], dict[str, Any]]] = {
    "Adam": (th.optim.Adam, {"eps": 1e-3, "betas": (0.7, 0.95)}),
    "Adam, betas of zero": (th.optim.Adam, {"betas": (0.0, 0.0), "eps": 1e-2}),
    "Adam, weight_decay": (th.optim.Adam, {"weight_decay": 0.1}),
    "Adam, amsgrad": (th.optim.Adam, {"amsgrad": True}),
    "Adam, maximize": (th.optim.Adam, {"maximize": True, "weight_decay": 0.1}),
    "Adam, foreach": (th.optim.Adam, {"foreach": True}),
    "Adam, fused": (th.optim.Adam, {"fused": True}),
    "AdamW": (th.optim.AdamW, {}),
    "AdamW, all": (th.optim.AdamW, {"weight_decay": 0.3, "amsgrad": True, "maximize": True, "eps": 1e-4}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    optimizer_class, kwargs = OPTIMIZERS[name]
    Pair(policy_kwargs={"optimizer_class": optimizer_class, "optimizer_kwargs": kwargs}).train()


def test_a_saved_model_continues_in_sb3_as_one_that_sb3_trained(tmp_path: Path) -> None:
    optimizer_class, kwargs = OPTIMIZERS["AdamW, all"]
    pair = Pair(policy_kwargs={"optimizer_class": optimizer_class, "optimizer_kwargs": kwargs}).train(2)
    loaded = []
    for which, model in (("oracle", pair.oracle), ("model", pair.model)):
        model.save(tmp_path / which)
        loaded.append(PPO.load(tmp_path / which, device="cpu"))
        loaded[-1].set_logger(model.logger)
        share_rollout(pair.oracle, loaded[-1])
        np.random.seed(9)
        loaded[-1].train()
    pair.oracle, pair.model = loaded
    pair.assert_agree()


def test_a_traced_update_continues_where_sb3_was() -> None:
    def train_eagerly(model: PPO) -> None:
        np.random.seed(4)
        model.train()
        collect(model)

    pair = Pair(prepare=train_eagerly).train()
    steps = {int(state["step"]) for state in pair.model.policy.optimizer.state.values()}
    assert steps == {3 * 2 * 3}


def test_sb3_continues_where_a_traced_update_was() -> None:
    pair = Pair().train()
    for model in (pair.oracle, pair.model):
        np.random.seed(4)
        model.train()
    pair.assert_agree()


# Trouble


def spoil_last_sample(model: PPO, array: str = "returns", value: float = np.inf) -> None:
    getattr(model.rollout_buffer, array)[-1, -1] = value


@pytest.mark.parametrize(
    ("policy", "array", "value"),
    [
        pytest.param("MlpPolicy", "advantages", np.nan, id="SB3's critic, advantage nan"),
        pytest.param("MlpPolicy", "returns", np.inf, id="SB3's critic, return inf"),
        pytest.param(OwnCriticPolicy, "returns", np.nan, id="critic of ones own, return nan"),
    ],
)
def test_what_is_not_finite_stops_its_minibatch(policy: Any, array: str, value: float) -> None:
    """The same one, with the same words, as in an eager update, and with the same weights."""
    pair = Pair(policy, policy_kwargs={} if policy is OwnCriticPolicy else BATCH_NORM)
    spoil_last_sample(pair.oracle, array, value)
    share_rollout(pair.oracle, pair.model)
    checked = TracedUpdates(pair.model, check_nan=True)
    # The sample is in the second of three minibatches.
    np.random.seed(next(seed for seed in range(99) if _place_of_last_sample(seed) in range(16, 32)))
    random_state = np.random.get_state()
    with pytest.raises(NonFiniteError) as expected, finite_updates(pair.oracle.policy, 7):
        pair.oracle.train()
    np.random.set_state(random_state)
    with pytest.raises(NonFiniteError, match="Update 7 was stopped before minibatch 2 could change") as found:
        checked.train(7)
    if policy == "MlpPolicy":
        assert str(found.value) == str(expected.value)
    found_state, expected_state = state_of(pair.model), state_of(pair.oracle)
    th.testing.assert_close(found_state["policy"], expected_state["policy"], rtol=TOLERANCE, atol=TOLERANCE)
    th.testing.assert_close(
        found_state["optimizer"]["state"], expected_state["optimizer"]["state"], rtol=TOLERANCE, atol=TOLERANCE
    )


def _place_of_last_sample(seed: int) -> int:
    return int(np.argmax(np.random.RandomState(seed).permutation(48)))


def test_gradients_of_a_minibatch_that_was_stopped_are_those_of_that_minibatch() -> None:
    """A debugger sees the gradients that were not finite, not a sum of those and others."""
    pair = Pair()
    for model in (pair.oracle, pair.model):
        np.random.seed(0)
        model.train()
        collect(model)
        # The loss stays finite, and so does each gradient, but their norm does not.
        model.policy.value_net.weight.data.fill_(1e18)
        model.policy.value_net.bias.data.fill_(0.0)
    share_rollout(pair.oracle, pair.model)
    checked = TracedUpdates(pair.model, check_nan=True)
    messages = []
    for train in (pair.oracle.train, checked.train):
        np.random.seed(1)
        with pytest.raises(NonFiniteError) as error, finite_updates(pair.oracle.policy, 1):
            train()
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    th.testing.assert_close(gradients(pair.model), gradients(pair.oracle), rtol=1e-4, atol=1e-5, equal_nan=True)


def test_a_divergence_that_overflows_stops_early_before_anything_is_checked() -> None:
    """SB3 looks at the divergence before it differentiates the loss."""
    pair = Pair(target_kl=0.1)
    pair.oracle.rollout_buffer.log_probs[:] = -1000.0
    share_rollout(pair.oracle, pair.model)
    checked = TracedUpdates(pair.model, check_nan=True)
    np.random.seed(1)
    with finite_updates(pair.oracle.policy, 1):
        pair.oracle.train()
    np.random.seed(1)
    checked.train()
    assert logged(pair.model)["train/approx_kl"] == logged(pair.oracle)["train/approx_kl"] == np.inf
    pair.assert_agree()


def test_nothing_that_is_not_finite_is_an_error_where_sb3_makes_none_of_it() -> None:
    """
    An infinite return spoils the critic. A single step, of networks without layers in which infinities meet, leaves the
    actor, whose distributions SB3 checks, as it is.
    """
    pair = Pair(batch_size=48, n_epochs=1, policy_kwargs={"net_arch": []})
    spoil_last_sample(pair.oracle)
    pair.train(1)
    assert pair.model.policy.value_net.weight.isnan().any()
    assert pair.model.policy.action_net.weight.isfinite().all()


def test_what_is_not_finite_in_the_actor_is_found_by_its_distribution() -> None:
    pair = Pair()
    spoil_last_sample(pair.oracle, "advantages", np.nan)
    share_rollout(pair.oracle, pair.model)
    for train in (pair.oracle.train, pair.updates.train):
        np.random.seed(1)
        with pytest.raises(ValueError, match="to satisfy the constraint"):
            train()
    for model in (pair.oracle, pair.model):
        assert model.policy.action_net.weight.isnan().any()


def forgets_the_value(program: Program) -> Program:
    """A program that computes another statistic."""

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        statistics = program(inputs)
        statistics[1] *= 1.01
        return statistics

    return wrong


def spoils_the_gradient(program: Program) -> Program:
    """A program whose gradient, the fourth of its inputs, is another one."""

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        statistics = program(inputs)
        inputs[3].mul_(1.05)
        return statistics

    return wrong


def spoils_the_weights(program: Program) -> Program:
    """A program that makes another step."""

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        statistics = program(inputs)
        inputs[0].add_(0.1)
        return statistics

    return wrong


def is_nan(program: Program) -> Program:
    """A program that computes NaN where there is none."""

    def wrong(inputs: list[th.Tensor]) -> th.Tensor:
        statistics = program(inputs)
        inputs[3].fill_(np.nan)
        return statistics

    return wrong


@pytest.mark.parametrize(
    "around", [forgets_the_value, spoils_the_gradient, spoils_the_weights, is_nan], ids=lambda around: around.__name__
)
def test_a_wrong_program_is_found_out_before_it_does_harm(around: Any) -> None:
    model = made(policy_kwargs=BATCH_NORM)
    wrong = TracedUpdates(model, around=around)
    np.random.seed(8)
    before = state_of(model)
    with pytest.raises(Unsupported, match="computes something else than it did when its update was compiled"):
        wrong.train()
    after = state_of(model)
    np.testing.assert_equal(after.pop("random"), before.pop("random"))
    th.testing.assert_close(after, before, rtol=0, atol=0)


def change_momentum(policy: Any) -> None:
    policy.features_extractor.network[1].momentum = 0.9


def change_activation(policy: Any) -> None:
    policy.mlp_extractor.policy_net[1] = nn.ReLU()


@pytest.mark.parametrize("change", [change_momentum, change_activation], ids=lambda change: change.__name__)
def test_a_policy_that_has_changed_since_it_was_traced_is_found_out(change: Any) -> None:
    """Also where only its running statistics are others."""
    model = made(policy_kwargs=BATCH_NORM)
    updates = TracedUpdates(model)
    change(model.policy)
    np.random.seed(8)
    before = state_of(model)
    with pytest.raises(Unsupported, match="computes something else"):
        updates.train()
    th.testing.assert_close(state_of(model)["policy"], before["policy"], rtol=0, atol=0)
    model.train()

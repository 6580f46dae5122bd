"""Which of SB3's tests expect something that docs/features.md describes differently."""

# They look at the environments as objects of their own process, and run with backend="inline".
LOOK_AT_ENV_OBJECTS = (
    "test_gae.py::test_gae_computation",
    "test_sde.py::test_state_dependent_noise",
)

_NAMES = "classes have names of their own (SB3's own tests, names)"
_SET_ENV = "set_env() takes another number of environments, where SB3's is an AssertionError (the life of a model)"

# Tests that have to fail, by the beginning of their names, and why.
DIFFERENCES = {
    "test_run.py::test_ppo_warnings": _NAMES,
    "test_callbacks.py::test_eval_callback_logs_are_written_with_the_correct_timestep": _NAMES,
    "test_tensorboard.py::test_tensorboard": _NAMES,
    "test_save_load.py::test_set_env": _SET_ENV,
}

_LAG = "of five updates, the policy lag costs one (docs/guide/modes.md); --mode sync passes"

# Tests that may fail, and why: SB3 just reaches the return that they ask for.
MAY_FAIL = {
    "test_identity.py::test_discrete[env1-AsyncPPO]": _LAG,
    "test_identity.py::test_discrete[env2-AsyncPPO]": _LAG,
    "test_identity.py::test_discrete[env2-AsyncA2C]": (
        "SB3's A2C passes with 2 seeds of 12, and the NumPy actor draws other numbers (actor='torch' gives SB3's)"
    ),
}

"""The states of LSTMs as they are recorded: under the names, and with the meaning, of sb3-contrib's rollout buffers."""

from sb3_walle.transport.layout import Field

#: the states before each step: hidden and cell states of the policy's LSTM, and of the critic's
LSTM_STATES = ("hidden_states_pi", "cell_states_pi", "hidden_states_vf", "cell_states_vf")


def lstm_fields(n_steps: int, n_envs: int, n_layers: int, n_units: int) -> tuple[Field, ...]:
    """
    :param n_steps: most steps that a chunk can hold, T
    :param n_envs: environments of a sampler, B
    :return: the arrays that an actor records states in, ``[T, B, n_layers, n_units]`` each
    """
    return tuple(Field(name, (n_steps, n_envs, n_layers, n_units), "<f4") for name in LSTM_STATES)

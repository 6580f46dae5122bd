"""A step of a slice that a dead worker has begun, at any instant: the learner makes it, with the same numbers."""

import pytest
import torch as th

from sb3_walle.gradient_workers.calls import Place, StepCall

CALL = StepCall(
    "half",
    (Place("next", slice(2, 6)), Place("state", slice(2, 6))),
    Place("made", 1),
    ((Place("state", slice(2, 6)), Place("next", slice(2, 6))),),
)
BEFORE = th.arange(8.0)


class DeathError(Exception):
    pass


def half(inputs: list[th.Tensor]) -> th.Tensor:
    after, before = inputs
    after.copy_(before * 3 + 1)
    return before.sum()


@pytest.mark.parametrize("n_written", range(5))
@pytest.mark.parametrize("is_whole", [False, True], ids=["beside the state", "in its place"])
def test_a_slice_is_made_once(is_whole: bool, n_written: int) -> None:
    tensors = {"state": BEFORE.clone(), "next": th.full((8,), -1.0), "made": th.zeros(3, dtype=th.bool)}
    target = tensors["state" if is_whole else "next"]

    def until_death(inputs: list[th.Tensor]) -> th.Tensor:
        found = half(inputs)
        if not is_whole:
            target[2 + n_written :] = -1.0
            raise DeathError
        return found

    call = CALL.bound({"half": until_death}, tensors)
    if is_whole:
        call()
        # As if it had been killed before the rest was in its place.
        target[2 + n_written : 6] = BEFORE[2 + n_written : 6]
    else:
        with pytest.raises(DeathError):
            call()
    assert bool(tensors["made"][1]) == is_whole
    CALL.bound({"half": half}, tensors)()
    expected = BEFORE.clone()
    expected[2:6] = BEFORE[2:6] * 3 + 1
    th.testing.assert_close(tensors["state"], expected, rtol=0, atol=0)

"""No reader ever sees half of one set of weights and half of another, however fast they are published."""

from torn_weights import read_while_publishing


def test_weights_read_while_others_are_published_are_never_torn() -> None:
    reads = read_while_publishing(seconds=2, n_readers=2)
    print(reads)
    assert reads.read > 5_000 and reads.published > 500
    assert reads.torn == reads.backwards == 0

"""A module at work with other tensors than its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch as th

from sb3_walle.updates.torch_private import held_tensors


@contextmanager
def substituted(module: th.nn.Module, tensors: Mapping[str, th.Tensor]) -> Iterator[None]:
    """
    Have a module compute with other tensors, wherever it has its own.

    ``torch.func.functional_call()`` does the same, but leaves the others behind where a part of the module can be
    reached in two ways, as the features extractor that SB3's policies share between actor and critic.

    :param tensors: by the names of the parameters and buffers that they replace
    """
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    others = {id(own[name]): tensor for name, tensor in tensors.items()}
    # Every part once, but every place of a tensor: weights may be tied.
    holders = [held for part in module.modules() for held in held_tensors(part)]
    places = [(held, name, tensor) for held in holders for name, tensor in held.items() if id(tensor) in others]
    for held, name, tensor in places:
        held[name] = others[id(tensor)]
    try:
        yield
    finally:
        for held, name, tensor in places:
            held[name] = tensor

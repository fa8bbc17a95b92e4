"""Building a network of a foreign file, which may describe one without end."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn
from torch.nn.modules import module as hooks

from medfcn.errors import ModelError

_PARTS_A_TENSOR, _SPARE_PARTS, _SPARE_NUMBERS = 16, 1000, 1 << 20


@contextmanager
def bounded_building(tensors: int, numbers: int, *, source: str, remedy: str) -> Iterator[None]:
    """Stop the building of a network as soon as it outgrows the file with its weights.

    On the device `meta` a network takes no memory for its weights, but its layers are made one by one.

    Args:
        tensors: Tensors in the file.
        numbers: Numbers in all of them.
        source: The file, for the message.
        remedy: What to do, for the message.

    Raises:
        ModelError: It has far more layers, tensors or weights.
    """
    here, layers, weights = threading.get_ident(), 0, 0

    def count(parent: nn.Module, name: str, part: object) -> None:
        nonlocal layers, weights
        if threading.get_ident() != here:
            return
        layers += 1
        weights += part.numel() if hasattr(part, "numel") else 0
        if layers > _PARTS_A_TENSOR * tensors + _SPARE_PARTS or weights > 4 * numbers + _SPARE_NUMBERS:
            raise ModelError(
                f"{source}: contains {tensors} tensors, far fewer than the network in model.json; {remedy}",
                code="WEIGHTS_MISFIT",
            )

    with ExitStack() as stack:
        for register in (
            hooks.register_module_module_registration_hook,
            hooks.register_module_parameter_registration_hook,
            hooks.register_module_buffer_registration_hook,
        ):
            stack.callback(register(count).remove)
        yield

"""States of no training in particular."""

import torch

from medfcn.training.state import State


def state_at(step: int) -> State:
    """A state whose every number follows from its step."""
    weights = {"weight": torch.full((200, 200), float(step))}
    return State(
        step=step,
        total=10**6,
        is_judged=True,
        supervised=weights,
        averaged=weights,
        updates=step,
        optimiser={
            "state": {0: {"exp_avg": weights["weight"] + 1}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}],
        },
        best_dice=0.5,
        best_step=step,
        best={},
        losses=[float(step)],
        step_seconds=[0.1],
        rows=[(step, 0.1, 1.0, 0.1, None, 1.0, 1.0)],
        micro_batch=8,
        parts=[(0, 8)],
        seconds=1.0,
        cpu_seconds=1.0,
    )

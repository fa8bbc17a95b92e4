"""Cores: how many this process may use."""

import math
import os
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_QUOTAS = ("cpu.max", "cpu/cpu.cfs_quota_us")
_PERIOD = "cpu/cpu.cfs_period_us"


def usable_cores(root: Path = _GROUP) -> int:
    """The cores that the system lets this process use, and the quota of its control group (a container) allows.

    Args:
        root: Where the system shows the control group.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, _quota(root))))


def _quota(root: Path) -> float:
    """The cores of a control group's quota; infinity without one."""
    try:
        if (root / _QUOTAS[0]).is_file():
            most, period = (root / _QUOTAS[0]).read_text(encoding="ascii").split()
        else:
            most, period = ((root / name).read_text(encoding="ascii").strip() for name in (_QUOTAS[1], _PERIOD))
        return int(most) / int(period) if int(most) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # no quota is "max", or there are no groups
        return math.inf

"""Which device and which arithmetic a network runs on."""

import torch

from medfcn.errors import SettingsError


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: `auto` takes a CUDA GPU where there is one, else the CPU.

    Raises:
        SettingsError: The name is unknown, or names a device that this machine lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device {name!r} is unknown; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise SettingsError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA GPUs; use auto or cpu"
        )
    return device


def set_threads(threads: int | None) -> None:
    """Fix the number of CPU threads that torch uses; None leaves torch's choice.

    Raises:
        SettingsError: Less than one.
    """
    if threads is None:
        return
    if threads < 1:
        raise SettingsError(f"threads {threads}: at least 1 is needed; leave --threads out for all cores")
    torch.set_num_threads(threads)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32 (on CPUs: AVX512-BF16 or AMX)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

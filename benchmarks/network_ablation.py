"""What each part of the network brings: one change at a time from `auto`, at equal CPU time, on two real sets.

    python benchmarks/network_ablation.py DATA OUTPUT [--seconds 60] [--seeds 0 1 2] [--processes 2] [--only NAME ...]

DATA is the folder that holds `hippocampus/` and `sts_mr_t1/`. All designs and seeds are scored on the same validation
people; see `ablation.py` for how they are compared. `network_ablation.jsonl` beside this file holds the runs of the
table in README.md; copied to `OUTPUT/runs.jsonl`, it lets the script add to them.
"""

from typing import Any

from ablation import SETS, Ablation, Design, main

from medfcn.networks.presets import PRESETS


def design(
    group: str, name: str, *, sets: tuple[str, ...] = SETS, training: dict[str, Any] | None = None, **network: Any
) -> Design:
    """A design that sees the slice alone, and fuses down to full size unless it says otherwise: what `auto` does with
    large slices follows from this table.
    """  # fmt: skip
    changed = {"slices": {"context": 1}, "network": {"stem_stride": 1} | network, "training": training or {}}
    return Design(group, name, changed, sets)


def designs() -> tuple[Design, ...]:
    """Every design that is compared; the first is what the others are compared with."""
    found = [design("preset", "auto")]
    for preset in PRESETS:
        if preset != "auto":
            width = 1 / 8 if str(PRESETS[preset].encoder).startswith("vgg16") else 1.0
            width = 1 / 4 if preset.startswith("resnet") else width
            shown = preset if width == 1 else f"{preset}, width {'1/8' if width == 1 / 8 else '1/4'}"
            found.append(design("preset", shown, preset=preset, width=width))
    found.append(design("fusion", "concat", fusion="concat"))
    found += [design("upsampling", method, upsampling=method) for method in ("bilinear", "nearest_conv", "dilated")]
    found += [design("normalisation", kind, normalisation=kind) for kind in ("instance", "group", "none")]
    found.append(design("supervision", "deep", training={"deep_supervision": True}))
    found.append(design("auxiliary", "presence, 0.1", training={"presence_weight": 0.1}))
    found.append(design("auxiliary", "distance, 0.5", training={"distance_weight": 0.5}))
    found += [design("width", f"{width:g}", width=width) for width in (0.5, 2.0)]
    for stem, widths in ((2, (16, 32, 64, 128, 256)), (4, (32, 64, 128, 256))):
        shown = f"stride {stem}, {'-'.join(map(str, widths))}"
        found.append(design("stem", shown, sets=SETS[1:], stem_stride=stem, widths=widths))
    return tuple(found)


if __name__ == "__main__":
    main(Ablation(designs(), splits=False, compares=False), __doc__.splitlines()[0])

"""What views, neighbouring slices, augmentation and optimisation bring, one change at a time from the defaults.

    python benchmarks/training_ablation.py DATA OUTPUT [--seconds 60] [--seeds 0 1 2] [--only NAME ...]

DATA is the folder that holds `hippocampus/` (1 mm voxels) and `sts_mr_t1/` (3.27 mm slices of 0.98 mm pixels). Each
seed keeps other people for validation, the same for all designs; see `ablation.py` for how they are compared.
"""

from typing import Any

from ablation import SETS, Ablation, Design, main

LARGE = SETS[1:]
"""The set with large slices."""


def designs() -> tuple[Design, ...]:
    """Every design; the first is the defaults."""

    def network(name: str, *, sets: tuple[str, ...] = SETS, **values: Any) -> Design:
        return Design("network", name, {"network": values}, sets)

    def others(group: str, table: str, **named: dict[str, Any]) -> list[Design]:
        return [Design(group, name.replace("_", " "), {table: values}) for name, values in named.items()]

    none = {
        "noise": 0.0,
        "blur_pixels": 0.0,
        "bias_field": 0.0,
        "contrast": 0.0,
        "brightness": 0.0,
        "gamma": 0.0,
    }
    still = {"rotation_degrees": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0, "elastic": 0.0}
    return (
        Design("", "defaults"),
        *others("slices", "slices", context_1={"context": 1}, context_3={"context": 3}, context_5={"context": 5}),
        *others("slices", "slices", three_views={"views": "all"}),
        network("stride 2 out", finest_stride=2, sets=LARGE),
        network("stride 4 out", finest_stride=4, sets=LARGE),
        network("stride 8 out", finest_stride=8, sets=LARGE),
        network("instance norm", normalisation="instance", sets=LARGE),
        network("stem 2", stem_stride=2, sets=SETS[:1]),
        network("stem 4, as narrow", stem_stride=4, widths=(16, 32, 64, 128), sets=SETS[:1]),
        network("stem 4", stem_stride=4, widths=(32, 64, 128, 256), sets=LARGE),
        network("resnet18 1/4, 4s", preset="resnet18_8s", width=0.25, finest_stride=4, sets=LARGE),
        network("resnet18 1/4, 8s", preset="resnet18_8s", width=0.25, sets=LARGE),
        network("resnet34 1/4, 8s", preset="resnet34_8s", width=0.25, sets=LARGE),
        network("resnet18 1/4, 16 scores, 4s", preset="resnet18_8s", width=0.25, score_channels=64, refinements=1,
                finest_stride=4, sets=LARGE),
        Design("window", "fine pixels, whole", {"slices": {"spacing_mm": (0.33, 0.33)}}, LARGE),
        Design("window", "fine pixels, 192", {"slices": {"spacing_mm": (0.33, 0.33), "window": (192, 192)}}, LARGE),
        *others("augmentation", "augment", mirror={"mirror": "auto"}, no_intensity=none, no_movement=still,
                no_elastic={"elastic": 0.0}, coarser_pixels={"low_resolution": 1.0}),
        *others("augmentation", "augment", none_still={"still_share": 0.0}, half_still={"still_share": 0.5}),
        *others("augmentation", "augment", strong={"rotation_degrees": 30.0, "scale": 0.4, "elastic": 0.04}),
        *others(
            "optimisation",
            "training",
            batch_8={"batch_size": 8},
            batch_11={"batch_size": 11},
            batch_16={"batch_size": 16},
            batch_64={"batch_size": 64},
            rate_2e_3={"learning_rate": 2e-3},
            rate_8e_3={"learning_rate": 8e-3},
            no_averaging={"ema_decay": 0.0},
            averaging_0_98={"ema_decay": 0.98},
            dice_of_each_slice={"dice_over": "slice"},
            cross_entropy={"loss": "ce"},
            smoothing_0_05={"label_smoothing": 0.05},
            foreground_1_3={"foreground_share": 0.33},
            foreground_0_8={"foreground_share": 0.8},
            deep_supervision={"deep_supervision": True},
            no_decay={"weight_decay": 0.0},
        ),
    )  # fmt: skip


if __name__ == "__main__":
    main(Ablation(designs()), __doc__.splitlines()[0])

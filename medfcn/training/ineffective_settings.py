"""Settings of a training that were changed and change nothing, each of which is said in a line."""

from collections.abc import Sequence

from medfcn.networks.design import head_of
from medfcn.networks.presets import PRESETS, with_preset
from medfcn.settings import AugmentSettings, NetworkSettings, PredictionSettings, Settings, TrainingSettings
from medfcn.slices.fingerprint import CaseFingerprint
from medfcn.slices.plan import Plan
from medfcn.slices.slicing import in_plane_axes
from medfcn.training.folds import Split
from medfcn.training.survey import Survey

_MOVES = ("rotation_degrees", "scale", "shear", "elastic")


def idle_settings(settings: Settings, plan: Plan, found: Survey, split: Split) -> tuple[str, ...]:
    """A line for each setting that is not as usual and changes nothing in a training.

    Args:
        settings: Those of the training.
        plan: Its plan.
        found: The cases and their labels.
        split: Their use.
    """
    training = [found.fingerprints[case_id] for case_id in split.training]
    ideas = {
        "prediction.tta": _idle_tta(settings.prediction, plan),
        "prediction.threshold": _idle_threshold(settings, found),
        "prediction.tile_overlap": _idle_overlap(settings.prediction, plan, training),
        "training.validation_share": _idle_share(settings.training, found, split),
        **_idle_losses(settings.training),
        **_idle_moves(settings.augment),
        **_idle_parts(settings.network, settings.training),
    }
    return tuple(f"setting {name} changes nothing: {why}" for name, why in ideas.items() if why)


def _idle_tta(prediction: PredictionSettings, plan: Plan) -> str:
    shown = any(plan.mirrored(view) for view in plan.views)
    return "training shows no mirror images (augment.mirror)" if prediction.tta and not shown else ""


def _idle_threshold(settings: Settings, found: Survey) -> str:
    labels = found.labels
    head = head_of(settings.network, len(labels.entries), overlapping=labels.overlapping)
    is_set = settings.prediction.threshold != "auto"
    return "of several labels the most probable one is taken" if is_set and head == "softmax" else ""


def _idle_overlap(prediction: PredictionSettings, plan: Plan, cases: Sequence[CaseFingerprint]) -> str:
    if prediction.tile_overlap == PredictionSettings.tile_overlap:
        return ""
    for view in plan.views:
        for axis, pixels in zip(in_plane_axes(view), plan.window, strict=True):
            for case in cases:
                if round(case.shape[axis] * case.spacing_mm[axis] / (plan.spacing_mm[axis] or 1)) > pixels:
                    return ""
    return "one window covers each slice of the training cases, so none is tiled"


def _idle_share(training: TrainingSettings, found: Survey, split: Split) -> str:
    if training.validation_share == TrainingSettings.validation_share:
        return ""
    if split.fold:
        return "folds decide which cases are validated"
    return f"the split is that of {found.dataset.splits.source}" if found.dataset.splits and split.origin else ""


def _idle_losses(training: TrainingSettings) -> dict[str, str]:
    usual, why = TrainingSettings(), f"it is no part of the loss {training.loss}"
    parts = {"dice_weight": ("ce_dice",), "dice_over": ("ce_dice", "dice", "tversky")}
    changed = [name for name in parts if getattr(training, name) != getattr(usual, name)]
    return {f"training.{name}": why for name in changed if training.loss not in parts[name]}


def _idle_moves(augment: AugmentSettings) -> dict[str, str]:
    usual, why = AugmentSettings(), "augment.still_share is 1, so no slice is moved by parts of a pixel"
    changed = [name for name in _MOVES if augment.still_share == 1 and getattr(augment, name) != getattr(usual, name)]
    return {f"augment.{name}": why for name in changed}


def _idle_parts(network: NetworkSettings, training: TrainingSettings) -> dict[str, str]:
    """Parts of a network that its other parts leave out."""
    if network.monai is not None:
        return {}
    chosen, preset = with_preset(network), PRESETS[network.preset]
    ideas = {}
    for name, is_idle, why in (
        ("classifier_channels", chosen.encoder != "vgg16", f"they are of the encoder vgg16, not of {chosen.encoder}"),
        ("score_channels", not chosen.scores, "network.scores is false"),
        ("fusion", not chosen.skips, "network.skips is false, so that nothing is fused"),
        ("decoder_dropout", not chosen.refinements, "it follows each refinement, and network.refinements is 0"),
    ):
        if is_idle and getattr(chosen, name) != getattr(preset, name):
            ideas[f"network.{name}"] = why
    if training.freeze_statistics and chosen.normalisation != "batch":
        ideas["training.freeze_statistics"] = f"the normalisation is {chosen.normalisation}, without statistics"
    if training.freeze_encoder and training.layer_decay != 1:
        ideas["training.layer_decay"] = "the encoder is frozen"
    return ideas

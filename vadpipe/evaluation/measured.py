"""What must stand in the metrics of a run, so that a file that is cut off or of another kind is seen at once."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationError


class _Figure(BaseModel):
    mean: float | None
    ci95: tuple[float, float] | None


class _Bootstrapped(_Figure):
    bootstrap95: tuple[float, float] | None


class _Macro(_Figure):
    clips: int


class _Figures(BaseModel):
    micro_auc: _Bootstrapped
    macro_auc: _Macro
    macro_padded: _Figure
    average_precision: _Figure
    eer: _Figure
    f1_max: _Figure


class _Component(BaseModel):
    raw: _Figures
    smoothed: _Figures
    per_clip_minmax: _Figures


class _Pixels(BaseModel):
    coverage: float | None
    auroc: _Figure
    average_precision: _Bootstrapped
    aupro: _Figure
    aupro_per_image: _Figure


class _Iou50(BaseModel):
    average_precision: _Bootstrapped


class _Iou30(_Iou50):
    precision: _Figure
    recall: _Figure
    misses: _Figure
    false_alarms: _Figure


class _Boxes(BaseModel):
    images: int
    images_with_truth: int
    true_boxes: int
    iou30: _Iou30
    iou50: _Iou50
    tracks: int | None
    rbdc: _Bootstrapped | None
    tbdc: _Bootstrapped | None


class _KindPixels(BaseModel):
    auroc: _Figure
    average_precision: _Figure
    aupro: _Figure


class _Kind(BaseModel):
    images: int
    image_auroc: _Figure
    pixels: _KindPixels | None


class _Category(BaseModel):
    clips: int
    frames: int
    abnormal_frames: int | None
    two_class_clips: int
    note: str | None
    coverage: float
    components: dict[str, _Component]
    pixels: _Pixels | None
    boxes: _Boxes | None
    kinds: dict[str, _Kind]


class _Run(BaseModel):
    run: str
    dataset: str
    method: str
    seeds: list[int] = Field(min_length=1)
    ordered: bool
    component: str
    categories: dict[str, _Category] = {}


class _Measured(_Category, _Run):
    pass


def damage(run: str, result: object) -> str | None:
    """Return what is wrong with the metrics of a run, None if they can be shown."""
    try:
        measured = _Measured.model_validate(result)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return f"lacks '{where}'" if first["type"] == "missing" else f"{where or 'the whole'}: {first['msg'].lower()}"
    if measured.run != run:
        return f"is of the run '{measured.run}'"
    for part in (measured, *measured.categories.values()):
        if measured.component not in part.components:
            return f"has no component '{measured.component}'"
    return None

"""The table of pixels and boxes, for runs with maps on a test set with masks or boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vadpipe.evaluation.markdown import figure, table, with_bootstrap
from vadpipe.evaluation.summary import Result, map_figure, map_mean

_COLUMNS = {
    "pixel AUROC": ("pixels", "auroc"),
    "**pixel AP**": ("pixels", "average_precision"),
    "AUPRO": ("pixels", "aupro"),
    "AUPRO, per image ‡": ("pixels", "aupro_per_image"),
    "AP@0.3": ("boxes", "iou30", "average_precision"),
    "AP@0.5": ("boxes", "iou50", "average_precision"),
    "precision@0.3": ("boxes", "iou30", "precision"),
    "recall@0.3": ("boxes", "iou30", "recall"),
    "RBDC": ("boxes", "rbdc"),
    "TBDC": ("boxes", "tbdc"),
    "misses an image": ("boxes", "iou30", "misses"),
    "false alarms an image": ("boxes", "iou30", "false_alarms"),
}

_WITH_INTERVAL = {"average_precision", "rbdc", "tbdc"}

NOTES = """\
- **pixel AUROC, pixel AP, AUPRO**: over all pixels of all test images whose truth is known, normal images
  included, at the size of the images. Truth is the mask of an image, else the inside of its boxes. What the
  method does not look at ranks below all else; **looked at** is the share of the rest. Where little is
  abnormal, pixel AUROC is close to 1 for almost any method: look at AP, which is the share of abnormal
  pixels for a random scorer.
- **AUPRO**: mean share found of the abnormal regions (8-connected, each of the same weight), over false
  positive rates of all normal pixels from 0 to 0.3, divided by 0.3; a random scorer has 0.15.
- **AP@0.3, AP@0.5**: average precision of boxes cut out of the maps; a box finds a true box from this
  intersection over union on, and each true box is found once. All points, steps, no interpolation.
- **AUPRO, per image ‡**: mean over the abnormal images of an area in each by itself, as in the code of reverse
  distillation (200 thresholds, rates below 0.3 stretched to 1, no normal images): to be compared with figures of that
  code alone, far above AUPRO.
- **precision, recall, misses, false alarms**: of boxes above a threshold that is taken from the maps of the
  training images, where it lets through a number of boxes an image that is set in `params.yaml`. Those that
  had annotated boxes are left out if there are others: inpainting leaves reflections and splashes. Misses
  are a mean over the images with true boxes, false alarms over all. Models have seen the training images,
  so that test images raise more false alarms than the set number.
- **RBDC, TBDC** (Ramachandra and Jones, WACV 2020; of video): area under the share of abnormal regions, and of
  tracks, that boxes find, over false alarms a frame from 0 to 1. A region is a true box in a frame, found from
  an overlap of 0.1 on; a track is found if a tenth of its regions is.
- Where a test set has masks and no boxes, true boxes are drawn around the regions of the masks, and regions
  of successive frames that overlap most are one track: figures on tracks drawn by hand will differ."""


def map_table(group: Sequence[Result]) -> str | None:
    """Return the table of a data set, the highest pixel AP first; None if no run has maps."""
    runs = sorted((result for result in group if result["pixels"]), key=_descending)
    if not runs:
        return None
    # Loose images have no tracks.
    columns = {name: place for name, place in _COLUMNS.items() if map_figure(runs[0], *place) is not None}
    header = ("run", "method", "seeds", "looked at", *columns)
    return f"### Pixels and boxes\n\n{_test_set(runs[0])}\n\n{table(header, [_row(run, columns) for run in runs])}"


def _row(result: Result, columns: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    cells = []
    for name, place in columns.items():
        found = map_figure(result, *place) or {"mean": None}
        write = with_bootstrap if found["mean"] is not None and place[-1] in _WITH_INTERVAL else figure
        cells.append(write(found, "**" if name.startswith("**") else ""))
    coverage = result["pixels"]["coverage"]
    looked_at = "-" if coverage is None else f"{coverage:.1%}"
    return result["run"], result["method"], str(len(result["seeds"])), looked_at, *cells


def _test_set(result: Result) -> str:
    boxes, what = result["boxes"], "frames" if result["ordered"] else "images"
    text = f"{boxes['images']:,} test {what} of known truth, {boxes['images_with_truth']:,} of them with something"
    tracks = f" of {boxes['tracks']:,} tracks" if boxes["tracks"] is not None else ""
    return f"{text} abnormal: {boxes['true_boxes']:,} true boxes{tracks}."


def _descending(result: Result) -> tuple[float, str]:
    found = map_mean(result, "pixel_ap")
    return (1.0 if found is None else -found), result["run"]

"""`sdmae`: a masked autoencoder that teaches itself; the score is what teacher and student make of a frame.

Ristea et al., "Self-Distilled Masked Auto-Encoders are Efficient Video Anomaly Detectors", CVPR 2024. Half the
patches of a frame are hidden, a teacher paints the whole frame, moving patches counting more (Eq. 1 to 3). Into a
quarter of the training frames virtual anomalies are pasted: the target stays clean, a further channel says where they
are, and a head on the class token whether there are any (Eq. 5). Then all is frozen, and a student of one block learns
to give what the teacher gives (Eq. 4). What paper and released code do differently are parameters.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, Preset, training_clips
from vadpipe.nn.cvt import Mlp, fold_norms
from vadpipe.nn.device import choose_device
from vadpipe.nn.masked_autoencoder import Layout, Masks, Order, Student, Teacher, draw_masks, to_patches
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.store import Clip, CompositeClip, Store
from vadpipe.store.atomic import replacing
from vadpipe.store.base import regroup
from vadpipe.store.scores import Scores
from vadpipe.training.composited import Batch, Frames, cached_frames, scaled
from vadpipe.training.group import leads
from vadpipe.training.loop import Curve, Plan, seeded, train
from vadpipe.training.motion import Motion

Values = Literal["signed", "unit", "none"]

_IMAGES = 16  # at once, when scoring

# The boxes of 9 pixels are boxes of 9 frames and one token of 16 pixels; for smaller patches take more tokens.
_PRESETS = {
    "paper": Preset(
        "as the paper says; the rest of it are the defaults",
        evaluate={"weights": {"teacher": 0.4, "discrepancy": 0.3, "head": 0.3}, "filter": [9, 1, 1], "pool": "max"},
    ),
    "code": Preset(
        "as the authors released it, but the last epoch is taken, not the best on the test set",
        train={
            "motion": "code",
            "anomaly_map": "signed",
            "head": 0.0,
            "student_loss": "masked",
            "student_epochs": 100,
            "weight_decay": 0.05,
            "betas": [0.9, 0.95],
        },
        # Sigma of 11 frames of Avenue, at 25 frames a second.
        evaluate={"weights": {"teacher": 1.0, "discrepancy": 1.0}, "pool": "mean", "smoothing_s": 0.44},
    ),
}


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    height: int = Field(ge=8, le=4096)
    width: int = Field(ge=8, le=4096)
    patch: int = Field(ge=1, le=256)
    neighbour: int = Field(ge=0, le=1000)
    masked: float = Field(gt=0, lt=1)
    order: Order
    mlp: Mlp
    motion: Motion
    composites: float = Field(ge=0, le=1)
    anomaly_map: Values
    head: float = Field(ge=0)
    student_epochs: int = Field(ge=0)
    student_loss: Literal["weighted", "masked"]
    betas: list[float] = Field(min_length=2, max_length=2)

    @model_validator(mode="after")
    def _whole_tokens(self) -> TrainParams:
        if self.height % self.patch or self.width % self.patch:
            raise ValueError(f"a patch of {self.patch} does not divide the size, {self.height}x{self.width}")
        columns = self.width // self.patch * (1 - self.masked)
        if columns < 1 or abs(columns - round(columns)) > 1e-6:
            raise ValueError(
                f"with {self.masked:g} masked, {columns:g} of {self.width // self.patch} columns of patches are kept, "
                "but the encoder needs a whole number of them; change width, patch or masked"
            )
        if self.head and not self.composites:
            raise ValueError("a head learns to tell composites from frames; give composites a share, or head: 0")
        return self

    @property
    def layout(self) -> Layout:
        """Return what the networks are built from."""
        kept = self.height // self.patch * round(self.width // self.patch * (1 - self.masked))
        channels, values = 3 if self.neighbour == 0 else 9, 3 if self.anomaly_map == "none" else 4
        return Layout(channels, self.height, self.width, self.patch, values, kept, self.mlp, self.head > 0)


class ScoreParams(DeviceParams):
    """Parameters of scoring."""

    passes: int = Field(ge=1, le=64)


class Sdmae(Method[Clip]):
    """Scores = errors of the teacher, discrepancy between teacher and student, and probability of a composite."""

    needs = "clips"
    temporal = True
    prefers = "composites"
    quick = False
    presets = _PRESETS
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams
    teacher: Teacher
    student: Student | None
    losses: Curve
    parameters: int

    def fit(self, store: Store[Clip], fit: Fit) -> None:
        """Train the teacher, then, on all that it gives, the student; either goes on where it was interrupted.

        Raises:
            UserError: the store has no composites but training wants some, a clip has fewer than three frames, or the
                training diverged.
        """
        params, layout = self.train, self.train.layout
        clips = training_clips(self, store)
        if params.composites and not any(isinstance(clip, CompositeClip) and clip.has_composites for clip in clips):
            raise UserError(
                f"{store.path} holds no composites, but train.composites is {params.composites:g}; let the run use "
                "data/composites/NAME, or give train composites: 0 and head: 0"
            )
        frames = cached_frames(clips, (params.height, params.width), params.motion, fit.checkpoints / "frames")
        with seeded(fit.seed):
            self.teacher, self.student = Teacher(layout), Student(layout)
        taught = fit.checkpoints / "teacher"
        if taught.is_dir():
            load_weights(taught, self.teacher)
            curve: Curve = known_of(taught)["losses"]
        else:
            curve = self._train(self.teacher, frames, fit, "phase_1", params.epochs)
            if leads():
                with replacing(taught, folder=True) as folder:
                    save_network(folder, self.teacher, losses=curve)
        if params.student_epochs:
            curve = curve + self._train(self.student, frames, fit, "phase_2", params.student_epochs)
        else:
            self.student = None
        self.losses = curve
        self.parameters = self._count()
        del frames
        if leads():
            shutil.rmtree(fit.checkpoints, ignore_errors=True)

    def _train(self, network: Teacher | Student, frames: Frames, fit: Fit, phase: str, epochs: int) -> Curve:
        params = self.train
        device = choose_device(params.device)
        network.to(device)
        # Never trained again: batch norm keeps its statistics, dropout is off, and no gradient is computed.
        self.teacher.to(device).eval()
        # Neither biases nor what normalises decay.
        groups = [
            {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": params.weight_decay},
            {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=params.learning_rate, betas=(params.betas[0], params.betas[1]))

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
            composite = generator.random(len(frames)) < params.composites
            order = generator.permutation(len(frames))
            for index in np.split(order, range(params.batch, len(order), params.batch)):
                yield frames.batch(index, composite[index], params.neighbour, params.patch, params.motion)

        loss = self._teacher_loss if isinstance(network, Teacher) else self._student_loss
        steps = -(-len(frames) // params.batch)
        plan = Plan(epochs, fit.seed, fit.checkpoints / phase, params.device, params.precision, steps=steps)
        return train(network, optimizer, batches, loss, plan)

    def _masks(self, count: int, device: torch.device) -> Masks:
        rows, columns = self.train.layout.grid
        return draw_masks(torch.rand(count, rows * columns, device=device), self.train.layout.kept, self.train.order)

    def _teacher_loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Eq. 3 and 5: errors of the patches, weighted by motion, and cross-entropy of the head."""
        given = network(in_range(batch.images), self._masks(len(batch.images), batch.images.device))
        errors = (given.patches.float() - self._target(batch.clean, batch.pasted)).square().mean(-1)
        parts = {"teacher": (errors * batch.weights).sum(1).mean()}
        if self.train.head:
            entropy = functional.binary_cross_entropy_with_logits(given.head.float(), batch.composite)
            parts["head"] = self.train.head * entropy
        return parts

    def _student_loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Eq. 4: errors against what the teacher gives, weighted by motion; as released, of hidden patches alone."""
        masks = self._masks(len(batch.images), batch.images.device)
        with torch.no_grad():
            given = self.teacher(in_range(batch.images), masks)
        errors = (network(given.trunk).float() - given.patches.float()).square().mean(-1)
        if self.train.student_loss == "masked":
            return {"student": errors[masks.masked].mean()}
        return {"student": (errors * batch.weights).sum(1).mean()}

    def _target(self, clean: torch.Tensor, pasted: torch.Tensor) -> torch.Tensor:
        """Return what the patches should be, (B, N, values a patch)."""
        planes = in_range(clean)
        if self.train.anomaly_map != "none":
            shown = pasted.float()
            planes = torch.cat([planes, 2 * shown - 1 if self.train.anomaly_map == "signed" else shown], 1)
        return to_patches(planes, self.train.patch)

    def save(self, folder: Path) -> None:
        """Save both networks and the losses of each epoch."""
        known = {"layout": list(self.train.layout), **self.record, "losses": self.losses}
        for name, network in self._networks.items():
            (folder / name).mkdir()
            save_network(folder / name, network, **known)

    def load(self, folder: Path) -> None:
        """Load the networks.

        Raises:
            UserError: they were trained with another configuration than params.yaml has now.
        """
        known = known_of(folder / "teacher")
        layout = self.train.layout
        if known["layout"] != list(layout):
            raise UserError(
                f"{folder} holds networks of {Layout(*known['layout'])}, but params.yaml asks for {layout}; train the "
                "run again"
            )
        self.losses = known["losses"]
        self.teacher = Teacher(layout)
        self.student = Student(layout) if (folder / "student").is_dir() else None
        for name, network in self._networks.items():
            load_weights(folder / name, network)
        self.parameters = self._count()
        # From here on they only score.
        for network in self._networks.values():
            fold_norms(network)

    @property
    def _networks(self) -> dict[str, Teacher | Student]:
        """Return the networks that there are."""
        return {"teacher": self.teacher} | ({} if self.student is None else {"student": self.student})

    def _count(self) -> int:
        return sum(map(parameters, self._networks.values()))

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of parameters."""
        return {"parameters": self.parameters}

    def score(self, clip: Clip) -> Iterator[Scores]:
        """Yield the squared errors of `teacher` and `student`, their `discrepancy`, with maps by token, and `head`.

        Half the patches are hidden here too; the masks are drawn anew for every frame and pass, equally in each clip,
        and the passes are averaged.
        """
        device = choose_device(self.score_params.device)
        for network in self._networks.values():
            network.to(device).eval()
        rows, columns = self.train.layout.grid
        chance = [np.random.default_rng((0, number)) for number in range(self.score_params.passes)]
        normal = torch.zeros((_IMAGES, 1, self.train.height, self.train.width), dtype=torch.bool, device=device)
        for images in _stacked(clip, self.train):
            shown = torch.from_numpy(images).to(device)
            middle = shown[:, 3:6] if self.train.neighbour else shown
            with torch.inference_mode():
                target = self._target(middle, normal[: len(shown)])
                found = [
                    self._look(shown, target, torch.from_numpy(one.random((len(shown), rows * columns), np.float32)))
                    for one in chance
                ]
            means: dict[str, npt.NDArray[np.float32]] = {
                name: np.stack([one[name] for one in found]).mean(0) for name in found[0]
            }
            maps = {name: values.reshape(-1, rows, columns) for name, values in means.items() if values.ndim == 2}
            frames = {name: values.mean(1) if values.ndim == 2 else values for name, values in means.items()}
            yield Scores(frames, maps)

    def _look(self, shown: torch.Tensor, target: torch.Tensor, noise: torch.Tensor) -> dict[str, npt.NDArray[Any]]:
        """Return errors and discrepancies of the patches (n, N), and probabilities (n,), as far as there are."""
        masks = draw_masks(noise.to(shown.device), self.train.layout.kept, self.train.order)
        given = self.teacher(in_range(shown), masks)
        found = {"teacher": (given.patches - target).square().mean(-1)}
        if self.student is not None:
            imitated = self.student(given.trunk)
            found["student"] = (imitated - target).square().mean(-1)
            found["discrepancy"] = (imitated - given.patches).square().mean(-1)
        if self.train.head:
            found["head"] = given.head.sigmoid()
        return {name: values.float().cpu().numpy() for name, values in found.items()}


def in_range(images: torch.Tensor) -> torch.Tensor:
    """Return uint8 images as numbers from -1 to 1."""
    return (images.float() - 127.5) / 127.5


def _stacked(clip: Clip, params: TrainParams) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of a clip with their neighbours, uint8 (n, F * 3, H, W); a missing one is the frame itself."""
    shape = params.height, params.width, 3
    frames = (frame for chunk in clip.chunks() for frame in np.moveaxis(scaled(chunk, shape), -1, 1))
    if params.neighbour == 0:
        yield from regroup((frame[None] for frame in frames), _IMAGES)
        return
    yield from regroup((triple[None] for triple in _triples(frames, params.neighbour)), _IMAGES)


def _triples(frames: Iterator[npt.NDArray[np.uint8]], reach: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield each frame (3, H, W) between those `reach` before and behind it, (9, H, W)."""
    held: deque[npt.NDArray[np.uint8]] = deque(maxlen=2 * reach + 1)  # the last one is `reach` behind the middle

    def around(middle: int, window: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        before, after = middle - reach, middle + reach
        chosen = (before if before >= 0 else middle, middle, after if after < len(window) else middle)
        return np.concatenate([window[index] for index in chosen])

    for index, frame in enumerate(frames):
        held.append(frame)
        if index >= reach:
            yield around(len(held) - 1 - reach, held)
    for middle in range(max(0, len(held) - reach), len(held)):
        yield around(middle, held)

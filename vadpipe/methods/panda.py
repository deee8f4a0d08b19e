"""`panda`: a pretrained backbone, adapted to normal images without forgetting what else there is to see.

Reiss, Cohen, Bergman, Hoshen, "PANDA: Adapting pretrained features for anomaly detection and segmentation", CVPR 2021.
The features of normal images are drawn towards the centre that they had at first (compactness loss); a frame scores
the distances to its nearest training vectors, as in `knn`. Drawn for long, all images end in the centre, and the paper
has several ways out:

- `none`: nothing is adapted (DN2).
- `early`: a fixed number of steps.
- `ses`: sample-wise early stopping. Checkpoints are kept, and a frame takes the one at which it stands out most: the
  largest ratio of its score to the mean score of training.
- `ewc`: elastic weight consolidation. What matters to the classes of the pretraining is held by the Fisher information.
- `joint`: the classes of labelled images are learned on the side (the baseline of the paper).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, Method, NetworkParams, Section, training_clips
from vadpipe.nn.adapting import class_head, trained_after
from vadpipe.nn.backbones import Backbone
from vadpipe.nn.device import choose_device
from vadpipe.nn.neighbours import Gallery
from vadpipe.params import BackboneParams, Device
from vadpipe.store import Clip, Store
from vadpipe.store.atomic import write_json
from vadpipe.store.base import parts
from vadpipe.store.features import Vectors
from vadpipe.store.images import Image
from vadpipe.store.scores import Scores
from vadpipe.training.fisher import Tensors, fisher_diagonal, load_fisher, save_fisher
from vadpipe.training.group import leads
from vadpipe.training.labelled import Labelled, encoded, find_labelled, linear_classifier
from vadpipe.training.loop import Curve, Plan, seeded, train

# Frames that the network sees at once where nothing is learned.
_FRAMES = 32
# Labelled images, at most, that a classifier is fitted on before it is trained on.
_CLASSIFIED = 10_000
# Spread of the training vectors, as a share of what it was, below which the network says the same of everything.
_COLLAPSED = 1e-3

_WEIGHTS, _GALLERIES, _FISHER = "checkpoints.safetensors", "galleries.safetensors", "fisher.safetensors"
_KNOWN = "adaptation.json"

Adaptation = Literal["none", "early", "ses", "ewc", "joint"]
# Normal images uint8 (n, H, W, 3), and for `joint` labelled ones and their classes.
Batch = tuple[torch.Tensor, ...]
ItemT = TypeVar("ItemT")


class TrainParams(NetworkParams, BackboneParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    adaptation: Adaptation
    frozen: int = Field(ge=0)
    steps: int = Field(ge=1)
    checkpoints: int = Field(ge=1, le=1000)
    momentum: float = Field(ge=0, lt=1)
    clip_norm: float | None = Field(gt=0)
    penalty: float = Field(ge=0)
    fisher: str | None
    fisher_images: int = Field(ge=1)
    labelled: str | None
    compactness: float = Field(gt=0)

    @model_validator(mode="after")
    def _what_goes_together(self) -> TrainParams:
        if self.adaptation == "joint" and self.labelled is None:
            raise ValueError("joint learns the classes of labelled images; give `labelled`, a folder of class folders")
        if self.steps < self.checkpoints:
            raise ValueError(f"{self.steps} steps cannot give {self.checkpoints} checkpoints; lower `checkpoints`")
        return self


class ScoreParams(Section):
    """Parameters of scoring."""

    k: int = Field(ge=1)
    statistic: Literal["center", "knn"]
    device: Device


class CollapsedError(UserError):
    """A network that gives the same vector for every image."""


class Adapted(nn.Module):
    """A backbone, with the layer that tells the classes of labelled images where there is one."""

    def __init__(self, backbone: Backbone, head: nn.Module | None) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def train(self, mode: bool = True) -> Adapted:
        """Stay in evaluation mode: batch norm keeps the statistics of the pretraining, or everything collapses."""
        return super().train(False)

    def forward(self, images: torch.Tensor, labelled: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Return the vectors (n, D) of images uint8 (n, H, W, 3), and of labelled ones the logits (m, classes)."""
        if labelled is None or self.head is None:
            return (self.backbone(images.permute(0, 3, 1, 2)),)
        vectors = self.backbone(torch.cat([images, labelled]).permute(0, 3, 1, 2))
        return vectors[: len(images)], self.head(vectors[len(images) :])


class Panda(Method[Clip]):
    """Score = sum of the squared L2 distances of an adapted vector to the k nearest training vectors."""

    needs = "clips"
    temporal = False
    quick = False
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams
    score_params: ScoreParams

    def fit(self, store: Store[Clip], fit: Fit) -> None:
        """Adapt the backbone to the training images, which are held in memory as they are encoded.

        Raises:
            UserError: the backbone, its weights, labelled images or Fisher information are not to be had, or the
                training diverged.
            CollapsedError: all images ended in one vector.
        """
        params = self.train
        labelled = None if params.labelled is None else find_labelled(Path(params.labelled))
        self._build(params.device)
        self.fisher: tuple[Tensors, dict[str, Any]] | None = None
        self.losses = []
        images = [data for clip in training_clips(self, store) for group in clip.encoded() for data in group]
        first = self._vectors(images, len(images))
        self.centre = first.mean(axis=0, dtype=np.float64).astype(np.float32)
        self.states: list[Tensors] = [{}]
        if params.adaptation != "none":
            with seeded(fit.seed) as generator:
                head = self._prepare(images, labelled, generator)
            self.losses = self._adapt(images, labelled, head, fit)
            if not leads():
                return
            self.states = self._kept(fit) if params.adaptation == "ses" else [self._state()]
        self.galleries = []
        for state in self.states:
            self._take(state)
            self.galleries.append(self._vectors(images, len(images)))
        self._leave_out_collapsed(_spread(first))
        shutil.rmtree(fit.checkpoints, ignore_errors=True)

    def _build(self, device: str) -> None:
        """Load the backbone, all of it frozen but what is trained."""
        self.backbone = Backbone(self.train).to(memory_format=torch.channels_last)
        self.trained = {} if self.train.adaptation == "none" else trained_after(self.backbone.net, self.train.frozen)
        for value in self.trained.values():
            value.requires_grad_(True)
        self.backbone.to(choose_device(device))

    def _prepare(
        self, images: Sequence[bytes], labelled: Labelled | None, generator: np.random.Generator
    ) -> nn.Module | None:
        """Return the layer that tells classes, and compute or load the Fisher information, where they are wanted."""
        params = self.train
        if params.adaptation not in {"ewc", "joint"}:
            return None
        if params.adaptation == "ewc" and params.fisher is not None:
            self.fisher = load_fisher(Path(params.fisher), self.trained, self.backbone.record)
            return None
        head = class_head(params)
        if labelled and (head is None or head.out_features != len(labelled.names)):
            some = labelled.some(_CLASSIFIED, generator)
            head = linear_classifier(self._vectors(map(encoded, some.files), len(some.files)), some.labels)
        if head is None:
            raise UserError(
                f"params.yaml: panda: the weights of {params.backbone} have no class head, so they predict nothing; "
                "give train.labelled, a folder of labelled images, or train.fisher, which another run saved"
            )
        head.to(choose_device(params.device))
        if params.adaptation == "joint":
            return head
        self.fisher = self._measure(head, images, labelled, generator)
        return None

    def _measure(
        self, head: nn.Module, images: Sequence[bytes], labelled: Labelled | None, generator: np.random.Generator
    ) -> tuple[Tensors, dict[str, Any]]:
        """Return the Fisher information, and what is known of it: whose labels, and of how many images."""
        most = self.train.fisher_images
        if labelled:
            some = labelled.some(most, generator)
            given: Sequence[bytes] | Iterable[bytes] = map(encoded, some.files)
            labels: list[int | None] = some.labels.tolist()
            source = f"labels of {self.train.labelled}"
        else:
            rows = generator.permutation(len(images))[:most]
            given, labels = [images[row] for row in rows], [None] * len(rows)
            source = "predictions for training images"

        device = choose_device(self.train.device)

        def logits(one: torch.Tensor) -> torch.Tensor:
            values: torch.Tensor = head(self.backbone(one))
            return values

        def shown() -> Iterator[tuple[torch.Tensor, int | None]]:
            frames = (one for group in self.backbone.frames(parts(given, _FRAMES)) for one in group)
            with progress.bar(len(labels), "images", "fisher") as bar:
                for frame, label in zip(frames, labels, strict=True):
                    yield torch.from_numpy(frame[None]).to(device).permute(0, 3, 1, 2), label
                    bar.update()

        about = {name: self.backbone.record[name] for name in ("backbone", "sha256")}
        known = {**about, "source": source, "images": len(labels)}
        return fisher_diagonal(logits, self.trained, shown()), known

    def _adapt(self, images: Sequence[bytes], labelled: Labelled | None, head: nn.Module | None, fit: Fit) -> Curve:
        """Train what is not frozen, a round a checkpoint."""
        params = self.train
        network = Adapted(self.backbone, head)
        before = {name: value.detach().clone() for name, value in self.trained.items()}
        centre = torch.from_numpy(self.centre).to(choose_device(params.device))
        ends = np.linspace(0, params.steps, params.checkpoints + 1).round().astype(int)
        together = labelled if params.adaptation == "joint" else None

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
            steps = int(ends[epoch + 1] - ends[epoch])
            normal = self.backbone.frames(_drawn(images, params.batch, steps, generator))
            if together is None:
                yield from ((torch.from_numpy(one),) for one in normal)
                return
            rows = list(_drawn(range(len(together.files)), params.batch, steps, generator))
            others = self.backbone.frames([encoded(together.files[row]) for row in some] for some in rows)
            for one, other, some in zip(normal, others, rows, strict=True):
                yield torch.from_numpy(one), torch.from_numpy(other), torch.from_numpy(together.labels[some])

        def loss(network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            vectors, *logits = network(*batch[:2])
            # The mean over the vector's numbers, as released: `penalty` and `compactness` are in its units.
            found = {"compactness": params.compactness * (vectors.float() - centre).square().mean()}
            if logits:
                found["classes"] = functional.cross_entropy(logits[0].float(), batch[2])
            if self.fisher is not None:
                found["penalty"] = params.penalty / 2 * _drift(self.fisher[0], self.trained, before)
            return found

        def keep(epoch: int) -> None:
            if params.adaptation == "ses" and leads():
                _kept_file(fit, epoch).parent.mkdir(parents=True, exist_ok=True)
                save_file(self._state(), _kept_file(fit, epoch))

        weights = [value for value in network.parameters() if value.requires_grad]
        optimizer = torch.optim.SGD(
            weights, lr=params.learning_rate, momentum=params.momentum, weight_decay=params.weight_decay
        )
        plan = Plan(
            params.checkpoints,
            fit.seed,
            fit.checkpoints / "training",
            params.device,
            params.precision,
            clip_norm=params.clip_norm,
            steps=-(-params.steps // params.checkpoints),
            ended=keep,
        )
        return train(network, optimizer, batches, loss, plan)

    def _state(self) -> Tensors:
        return {name: value.detach().cpu().clone().contiguous() for name, value in self.trained.items()}

    def _kept(self, fit: Fit) -> list[Tensors]:
        return [load_file(_kept_file(fit, number)) for number in range(self.train.checkpoints)]

    def _take(self, state: Tensors) -> None:
        """Give the backbone the weights of a checkpoint; {} = those that it came with."""
        self.backbone.net.load_state_dict(state, strict=False)

    def _vectors(self, images: Iterable[bytes], count: int) -> Vectors:
        """Return the vectors of encoded images, (count, D), as the backbone is now."""
        with progress.bar(count, "frames", "features") as bar:
            groups = progress.advancing(self.backbone.frames(parts(images, _FRAMES)), bar)
            return np.concatenate([self._of(group) for group in groups])

    def _of(self, frames: Image) -> Vectors:
        """Return the vectors of frames uint8 (n, H, W, 3), as the backbone is now."""
        device = self.backbone.mean.device
        with torch.inference_mode():
            found: Vectors = (
                self.backbone(torch.from_numpy(frames).to(device).permute(0, 3, 1, 2)).float().cpu().numpy()
            )
        return found

    def _leave_out_collapsed(self, before: float) -> None:
        """Leave out checkpoints at which all images have one vector, and note what is left of the spread of training.

        Raises:
            CollapsedError: there is no other.
        """
        spreads = [_spread(gallery) / before if before > 0 else 1.0 for gallery in self.galleries]
        there = [number for number, spread in enumerate(spreads) if spread >= _COLLAPSED]
        if not there:
            raise CollapsedError(
                f"panda: the adaptation collapsed within {self.train.steps} steps: all training images have the same "
                f"vector, whose spread is {spreads[-1]:.1g} of what it was; lower train.steps or train.learning_rate, "
                "give train.clip_norm, or use `adaptation: ewc`"
            )
        self.states = [self.states[number] for number in there]
        self.galleries = [self.galleries[number] for number in there]
        self._record = {
            **self.backbone.record,
            "trained": sum(value.numel() for value in self.trained.values()),
            "checkpoints": len(there),
            "collapsed": len(spreads) - len(there),
            "spread": round(spreads[there[-1]], 4),
            **({} if self.fisher is None else {"fisher": self.fisher[1]}),
        }

    def save(self, folder: Path) -> None:
        """Save what was trained of each checkpoint, the training vectors, and the Fisher information."""
        states = {
            f"{number}/{name}": value for number, state in enumerate(self.states) for name, value in state.items()
        }
        save_file(states, folder / _WEIGHTS)
        galleries = {str(number): torch.from_numpy(gallery) for number, gallery in enumerate(self.galleries)}
        save_file({"centre": torch.from_numpy(self.centre), **galleries}, folder / _GALLERIES)
        if self.fisher is not None:
            save_fisher(folder / _FISHER, self.fisher[0], **self.fisher[1])
        write_json(folder / _KNOWN, {"record": self.record, "losses": self.losses})

    def load(self, folder: Path) -> None:
        """Load what `save` wrote.

        Raises:
            UserError: the weights of the backbone are others than those that were adapted.
        """
        known = json.loads((folder / _KNOWN).read_text())
        self.losses, self._record = known["losses"], known["record"]
        self._build(self.score_params.device)
        if self.backbone.record["sha256"] != self._record["sha256"]:
            raise UserError(
                f"{folder} holds an adaptation of {self._record['weights']}, but the weights of {self.train.backbone} "
                f"are now others, {self.backbone.record['weights']}; bring those back, or train the run again"
            )
        galleries = load_file(folder / _GALLERIES)
        self.centre = galleries.pop("centre").numpy()
        self.galleries = [galleries[str(number)].numpy() for number in range(len(galleries))]
        self.states = [{} for _ in self.galleries]
        for name, value in load_file(folder / _WEIGHTS).items():
            number, _, of = name.partition("/")
            self.states[int(number)][of] = value
        self.__dict__.pop("searches", None)

    @property
    def record(self) -> dict[str, Any]:
        """Return the backbone, how many of its weights were trained, and what of the training's spread is left."""
        return self._record

    @cached_property
    def searches(self) -> list[Gallery]:
        """The training vectors of each checkpoint, to be searched."""
        return [Gallery(one, self.score_params.k, self.score_params.device) for one in self.galleries]

    @cached_property
    def means(self) -> Vectors:
        """What the training images score at each checkpoint, in the mean, (T,)."""
        if self._statistic == "center":
            found = [_to(self.centre, gallery).mean() for gallery in self.galleries]
        else:
            # The nearest of a training vector is itself.
            k, device = self.score_params.k + 1, self.score_params.device
            found = [Gallery(one, k, device).nearest(one)[0][:, 1:].sum(1).mean() for one in self.galleries]
        return np.maximum(np.array(found, np.float32), np.float32(1e-12))

    @property
    def _statistic(self) -> str:
        return self.score_params.statistic if self.train.adaptation == "ses" else "knn"

    def score(self, clip: Clip) -> Iterator[Scores]:
        """Yield one component: `distance`, in squared units of the vectors, or for `ses` the `ratio`.

        Raises:
            UserError: k is larger than the gallery.
        """
        for frames in self.backbone.frames(clip.encoded()):
            values = np.stack([self._value(number, frames) for number in range(len(self.states))])
            if self.train.adaptation == "ses":
                yield Scores({"ratio": (values / self.means[:, None]).max(axis=0)})
            else:
                yield Scores({"distance": values[0]})

    def _value(self, number: int, frames: Image) -> Vectors:
        """Return the statistic of frames at a checkpoint, (n,)."""
        self._take(self.states[number])
        vectors = self._of(frames)
        if self._statistic == "center":
            return _to(self.centre, vectors)
        found: Vectors = self.searches[number].nearest(vectors)[0].sum(1)
        return found


def _drawn(items: Sequence[ItemT], size: int, count: int, generator: np.random.Generator) -> Iterator[list[ItemT]]:
    """Yield so many batches, from one random order of all items after the other."""
    while count > 0:
        order = generator.permutation(len(items)).tolist()
        for rows in islice(parts(order, size), count):
            yield [items[row] for row in rows]
            count -= 1


def _drift(fisher: Tensors, weights: Mapping[str, torch.Tensor], before: Tensors) -> torch.Tensor:
    """Return how far the weights are from what they were, squared, each weighted by its Fisher information."""
    parts_of = [(fisher[name] * (value - before[name]).square()).sum() for name, value in weights.items()]
    return torch.stack(parts_of).sum()


def _to(centre: Vectors, vectors: Vectors) -> Vectors:
    """Return the squared distances (n,) of vectors (n, D) to the centre."""
    found: Vectors = ((vectors - centre) ** 2).sum(axis=1)
    return found


def _spread(vectors: Vectors) -> float:
    """Return the mean squared distance of vectors (n, D) to their mean."""
    return float(_to(vectors.mean(axis=0, dtype=np.float64).astype(np.float32), vectors).mean())


def _kept_file(fit: Fit, number: int) -> Path:
    return fit.checkpoints / "kept" / f"{number}.safetensors"

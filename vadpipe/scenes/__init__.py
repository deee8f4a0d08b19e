"""Scenes that are drawn, as data sets: the name of a folder with `write` is the name of a scene."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from vadpipe.errors import UserError, did_you_mean
from vadpipe.params import parse
from vadpipe.store.atomic import replacing


class Scene(Protocol):
    """What the folder of a scene holds: a model of its parameters, and a function that writes the data set."""

    Params: type[BaseModel]

    def write(self, params: BaseModel, folder: Path) -> None:
        """Write the data set into an empty folder."""


# What scenes share.
_SHARED = {"arrays", "figures", "pinhole", "videos"}


def names() -> list[str]:
    """Return the names of all scenes."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


def generate(name: str, values: dict[str, Any], out: Path) -> None:
    """Write a generated data set, checked parameters first.

    Raises:
        UserError: there is no such scene, or a parameter is wrong.
    """
    scene, params = check(name, values)
    with replacing(out, folder=True) as folder:
        scene.write(params, folder)
    print(f"generated {out}")


def check(name: str, values: dict[str, Any]) -> tuple[Scene, BaseModel]:
    """Return a scene and its checked parameters.

    Raises:
        UserError: there is no such scene, or a parameter is wrong.
    """
    if name not in names():
        raise UserError(f"params.yaml: generate.{name}: there is no scene '{name}'{did_you_mean(name, names())}")
    scene = cast(Scene, importlib.import_module(f"{__name__}.{name}"))
    return scene, parse(scene.Params, values, f"params.yaml: generate.{name}")

"""Generated data sets; the name of a file here is the name of its generator."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import BaseModel

from vadpipe.errors import UserError, did_you_mean
from vadpipe.params import parse
from vadpipe.store.atomic import replacing


class Generator(Protocol):
    """What a file here holds: a model of its parameters, and a function that writes the data set."""

    Params: type[BaseModel]

    def write(self, params: BaseModel, folder: Path) -> None:
        """Write the data set into an empty folder."""


def names() -> list[str]:
    """Return the names of all generators."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def generate(name: str, values: dict[str, Any], out: Path) -> None:
    """Write a generated data set, checked parameters first.

    Raises:
        UserError: there is no such generator, or a parameter is wrong.
    """
    generator, params = check(name, values)
    with replacing(out, folder=True) as folder:
        generator.write(params, folder)
    print(f"generated {out}")


def check(name: str, values: dict[str, Any]) -> tuple[Generator, BaseModel]:
    """Return a generator and its checked parameters.

    Raises:
        UserError: there is no such generator, or a parameter is wrong.
    """
    if name not in names():
        raise UserError(f"params.yaml: generate.{name}: there is no generator '{name}'{did_you_mean(name, names())}")
    generator = cast(Generator, importlib.import_module(f"{__name__}.{name}"))
    return generator, parse(generator.Params, values, f"params.yaml: generate.{name}")

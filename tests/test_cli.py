"""The command line: help at once, additions to params.yaml, mistakes in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.conftest import REPO, folder_dataset, pool_dataset, tiny_params, ucsd_dataset, write_params
from vadpipe import cli, edit, params
from vadpipe.errors import UserError
from vadpipe.methods import base

VADPIPE = Path(sys.executable).parent / "vadpipe"


def commands(group: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


ALL = commands(typer.main.get_command(cli.app))


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", ALL, ids=" ".join)
def test_every_command_has_help_with_an_example(command: tuple[str, ...]) -> None:
    assert "Example: vadpipe" in invoke(*command, "--help")


def test_help_is_light() -> None:
    code = (
        "import sys, runpy; sys.argv = ['vadpipe', '--help']\n"
        "try:\n runpy.run_module('vadpipe', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'sklearn', 'timm', 'pyarrow', 'pandas', 'matplotlib', 'dvc'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_mistake_is_one_line_with_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run([VADPIPE, "data", "list"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: params.yaml is not here; run the command in the root of the repository\n"
    done = subprocess.run([VADPIPE, "data", "lst"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without data sets."""
    monkeypatch.chdir(tmp_path)
    nothing: dict[str, dict] = {
        name: {} for name in ("ingest", "archived", "inpaint", "pool_mask", "composite", "flow", "features", "runs")
    }
    write_params({**tiny_params(), **nothing})
    return tmp_path


@pytest.mark.parametrize("place", ["copy", "link"])
def test_data_add_ucsd(empty: Path, place: str) -> None:
    source = ucsd_dataset(empty / "elsewhere")
    output = invoke("data", "add", "ped2", str(source), "--reader", "ucsd", "--place", place)
    assert "test: 3 clips" in output
    raw = Path("data/raw/ped2")
    assert raw.is_symlink() == (place == "link")
    assert (raw / "Test/Test001/001.tif").is_file()
    loaded = params.load()
    assert loaded.ingest["ped2"].reader == "ucsd"
    # Methods of pools and those that want a vector a cell do not fit whole frames of video.
    # One that trains for hours is added by hand.
    classes = {name: base.get(name) for name in loaded.methods}
    video = {name for name, cls in classes.items() if cls.needs != "pools" and cls.features == "vectors" and cls.quick}
    assert set(loaded.runs) == {f"ped2_{method}" for method in video}
    invoke("check")
    report = invoke("data", "check", "ped2")
    assert "test: 3 clips, 18 frames (6 to 6 a clip), 24x36 colour (3 clips)" in report
    assert "labels: 13 of 18 test frames are abnormal (72.2%)" in report
    assert "oddity: Test003 has no pixel masks" in report
    assert "ped2  " in invoke("data", "list")


def test_data_add_pool(empty: Path) -> None:
    source = pool_dataset(empty / "elsewhere")
    invoke("data", "add", "pool", str(source), "--reader", "pool", "--place", "copy")
    loaded = params.load()
    assert (loaded.ingest["pool"].fps, set(loaded.inpaint), set(loaded.pool_mask)) == (None, {"pool"}, {"pool"})
    # Loose images have no motion, and methods on maps of features do not know where the pool is.
    classes = {name: base.get(name) for name in loaded.methods}
    still = {name: cls for name, cls in classes.items() if not cls.temporal and cls.needs != "flow"}
    # Nor does it start with what takes long to train.
    images = {name for name, cls in still.items() if cls.features != "maps" and cls.quick}
    assert set(loaded.runs) == {f"pool_{method}" for method in images}
    assert {"pool_conv_ae", "pool_dfr", "pool_knn", "pool_brightness"} <= set(loaded.runs)
    invoke("check")
    report = invoke("data", "check", "pool")
    assert "train: 2 clips, 9 frames (3 to 6 a clip), 48x64 colour (2 clips)" in report
    assert "labels: 4 of 6 test frames are abnormal" in report
    assert "pool      pool    -" in invoke("data", "list")


def test_data_add_refuses(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    before = Path("params.yaml").read_text()
    for arguments, message in (
        (("Ped2", str(source), "--reader", "folder"), "the key 'Ped2' is no name"),
        (("../x", str(source), "--reader", "folder"), "is no name"),
        (("mine", str(source), "--reader", "foldr"), "did you mean 'folder'"),
        (("mine", str(source / "train"), "--reader", "folder"), "does not belong to the layout"),
        (("mine", str(source / "nowhere"), "--reader", "folder"), "nowhere is not there"),
        (("mine", str(source), "--reader", "ucsd"), "does not belong to the layout of UCSD"),
    ):
        with pytest.raises(UserError, match=message):
            invoke("data", "add", *arguments)
        assert Path("params.yaml").read_text() == before
        assert not Path("data").exists()
    invoke("data", "add", "mine", str(source), "--reader", "folder", "--fps", "10", "--place", "copy")
    with pytest.raises(UserError, match="has a data set 'mine' already"):
        invoke("data", "add", "mine", str(source), "--reader", "folder", "--fps", "10", "--place", "copy")


def test_data_add_with_a_name_that_is_taken_places_nothing(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    invoke("data", "add", "mine", str(source), "--reader", "folder", "--fps", "10", "--place", "link")
    invoke("runs", "add", "other_knn", "--dataset", "mine", "--method", "knn")
    before = Path("params.yaml").read_text()
    with pytest.raises(UserError, match="other_knn"):
        invoke("data", "add", "other", str(source), "--reader", "folder", "--fps", "10", "--place", "copy")
    assert Path("params.yaml").read_text() == before
    assert not Path("data/raw/other").exists()


def test_data_add_to_a_read_only_folder(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    Path("data").mkdir()
    Path("data/raw").symlink_to("/sys/kernel")
    for place in ("copy", "link", "dvc"):
        with pytest.raises(UserError, match="cannot write data/raw/mine"):
            invoke("data", "add", "mine", str(source), "--reader", "folder", "--fps", "10", "--place", place)
    assert "mine" not in params.load().ingest


def test_runs_add_takes_a_preset_and_the_store_that_serves_best(empty: Path) -> None:
    raw = str(folder_dataset(empty / "raw"))
    invoke("data", "add", "mine", raw, "--reader", "folder", "--fps", "10", "--place", "copy")
    invoke("runs", "add", "plain", "--dataset", "mine", "--method", "sdmae", "--preset", "code")
    plain = params.load().runs["plain"]
    assert plain.uses == "data/clips/mine"
    assert plain.train["student_loss"] == "masked"
    assert plain.evaluate["weights"] == {"teacher": 1.0, "discrepancy": 1.0}
    composite = YAML(typ="safe").load(REPO / "params.yaml")["composite"]["campus"]
    edit.add_items({"composite": {"mine": composite}})
    invoke("runs", "add", "paper", "--dataset", "mine", "--method", "sdmae", "--preset", "paper")
    assert params.load().runs["paper"].uses == "data/composites/mine"
    with pytest.raises(UserError, match="sdmae has no preset 'papers'; did you mean 'paper'"):
        invoke("runs", "add", "more", "--dataset", "mine", "--method", "sdmae", "--preset", "papers")


def test_runs_add_finds_what_the_method_uses(empty: Path) -> None:
    invoke(
        "data",
        "add",
        "mine",
        str(folder_dataset(empty / "elsewhere")),
        "--reader",
        "folder",
        "--fps",
        "10",
        "--place",
        "copy",
    )
    invoke("runs", "add", "again", "--dataset", "mine", "--method", "knn")
    assert params.load().runs["again"].uses == "data/features/mine_lite0"
    with pytest.raises(UserError, match="'again' already"):
        invoke("runs", "add", "again", "--dataset", "mine", "--method", "knn")
    with pytest.raises(UserError, match="did you mean 'mine'"):
        invoke("runs", "add", "other", "--dataset", "min", "--method", "brightness")
    with pytest.raises(UserError, match=r"no data set 'min'; did you mean 'mine'"):
        invoke("runs", "add", "other", "--dataset", "min", "--method", "knn")
    with pytest.raises(UserError, match="did you mean 'knn'"):
        invoke("runs", "add", "other", "--dataset", "mine", "--method", "knnn")
    with pytest.raises(UserError, match="no stage writes"):
        invoke("runs", "add", "other", "--dataset", "mine", "--method", "knn", "--uses", "data/features/x")
    with pytest.raises(UserError, match="is of kind 'flow', but knn needs 'features'"):
        invoke("runs", "add", "other", "--dataset", "mine", "--method", "knn", "--uses", "data/flow/mine")
    assert "other" not in params.load().runs
    assert "again" in invoke("runs", "list")


def test_methods_list_names_all() -> None:
    output = invoke("methods", "list")
    assert all(name in output for name in ("knn", "brightness", "frame_difference", "flow_magnitude"))


def test_version() -> None:
    assert "vadpipe 0." in invoke("--version")

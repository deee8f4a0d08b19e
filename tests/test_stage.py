"""What all stages have in common: the key they get, that they ran on what they say they ran on, and how they end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO, heed_ctrl_c, prepare, tiny_params, write_params
from vadpipe.stage import read_inputs

DVC_YAML = """
stages:
  fake:
    foreach: ${ingest}
    do:
      cmd: python -m stages.fake
      deps:
      - stages/fake.py
      - vadpipe/code
      - data/raw/${key}
      - data/${item.reader}.bin
      - data/linked
      params:
      - ingest.${key}
      - methods.${item.reader}.score
      - evaluate.bootstrap
  single:
    cmd: python -m stages.single
    deps:
    - data/raw
    params:
    - evaluate
"""
# A stage that does what the test wants while it runs.
FAKE = """
import os
from pathlib import Path
from vadpipe.errors import UserError
from vadpipe.stage import run_single, run_stage
from vadpipe.store.atomic import replacing
def main(name=""):
    with replacing(Path("out")) as beside:
        beside.write_text(name)
        exec(compile(os.environ["MEANWHILE"], "meanwhile", "exec"))  # of a string, exec would set the exit code
if __name__ == "__main__":
    (run_single if Path(__file__).stem == "single" else run_stage)(main)
"""


def test_links_that_lead_nowhere_or_back_are_no_trouble(here: Path) -> None:
    """Two folders that lead back to each other would be walked 2 ** 40 times."""
    for name in ("up", "back"):
        Path("data/raw/tiny/train", name).symlink_to("..")
    Path("data/raw/tiny/train/gone").symlink_to("nowhere")
    Path("data/raw/tiny/train/round").symlink_to("round")
    assert run("pass", "fake", "tiny").returncode == 0


@pytest.mark.parametrize("text", ["stages: [", "stages: {fake: {foreach: [1"])
def test_a_dvc_yaml_that_is_none(here: Path, text: str) -> None:
    Path("dvc.yaml").write_text(text)
    done = run("pass", "fake", "tiny")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: dvc.yaml is no valid YAML: ")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dvc.yaml of two fake stages, their code and data, as the current folder."""
    monkeypatch.chdir(tmp_path)
    files = {
        "dvc.yaml": DVC_YAML,
        "stages/__init__.py": (REPO / "stages" / "__init__.py").read_text(),
        "stages/fake.py": FAKE,
        "stages/single.py": FAKE,
        "vadpipe/code/a.py": "A = 1",
        "data/raw/tiny/train/a.bin": "aaaa",
        "data/raw/other/b.bin": "bbbb",
        "data/folder.bin": "cccc",
        "elsewhere/d.bin": "dddd",
    }
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)
    Path("data/linked").symlink_to("../elsewhere")
    tree = tiny_params()
    tree["methods"]["folder"] = {"train": {}, "score": {"k": 1}}
    write_params(tree)
    return tmp_path


def run(meanwhile: str = "pass", stage: str = "fake", *key: str, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *key],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPO), "MEANWHILE": meanwhile, **environment},
    )


def set_param(path: str, value: str) -> str:
    """Return code that sets a value of params.yaml as an editor or `dvc exp run -S` would."""
    *parents, last = path.split(".")
    section = "tree" + "".join(f"[{part!r}]" for part in parents)
    return (
        "from ruamel.yaml import YAML; yaml = YAML(); tree = yaml.load(Path('params.yaml'))\n"
        f"{section}[{last!r}] = {value}\nyaml.dump(tree, Path('params.yaml'))"
    )


CHANGED = {
    "a parameter of the item": (set_param("ingest.tiny.fps", "11.0"), r"params\.yaml: ingest\.tiny"),
    "a parameter of its reader": (set_param("methods.folder.score.k", "2"), r"params\.yaml: methods\.folder\.score"),
    "a parameter that all share": (set_param("evaluate.bootstrap", "51"), r"params\.yaml: evaluate\.bootstrap"),
    "the item is gone": (
        "from ruamel.yaml import YAML; tree = YAML().load(Path('params.yaml')); del tree['ingest']['tiny']\n"
        "YAML().dump(tree, Path('params.yaml'))",
        r"params\.yaml: ingest\.tiny \(and 2 more\)",
    ),
    "data of equal size": ("Path('data/raw/tiny/train/a.bin').write_text('AAAA')", r"data/raw/tiny/train/a\.bin"),
    "data added": ("Path('data/raw/tiny/train/b.bin').touch()", r"data/raw/tiny/train/b\.bin"),
    "data removed": ("Path('data/raw/tiny/train/a.bin').unlink()", r"data/raw/tiny/train/a\.bin"),
    "a file of data": ("Path('data/folder.bin').write_text('x')", r"data/folder\.bin"),
    "data behind a link": ("Path('elsewhere/d.bin').write_text('x')", r"data/linked/d\.bin"),
    "code": ("Path('vadpipe/code/a.py').write_text('A = 2')", r"vadpipe/code/a\.py"),
    "code added": ("Path('vadpipe/code/b.py').touch()", r"vadpipe/code/b\.py"),
    "its own code": ("Path('stages/fake.py').open('a').write('#')", r"stages/fake\.py"),
    "two files": (
        "Path('vadpipe/code/a.py').write_text('A = 2'); Path('data/folder.bin').write_text('x')",
        r"data/folder\.bin \(and 1 more\)",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
def test_an_input_that_changes_while_the_stage_runs_is_named(here: Path, case: str) -> None:
    meanwhile, named = CHANGED[case]
    done = run(meanwhile, "fake", "tiny")
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: {named} changed while the stage ran, .*run it again\n", done.stderr), done.stderr
    # The next run, on what is there now, is in order.
    assert run("pass", "fake", "tiny").returncode == 0


UNCHANGED = {
    "nothing": "pass",
    "a parameter of another item": set_param("ingest.tinypool.quality", "90"),
    "a parameter of another stage": set_param("evaluate.top_frames", "3"),
    "a comment": "Path('params.yaml').write_text('# new\\n' + Path('params.yaml').read_text())",
    "data of another set": "Path('data/raw/other/b.bin').write_text('x')",
    "code written anew": "Path('vadpipe/code/a.py').write_text('A = 1')",
    "what Python compiled": "Path('vadpipe/code/__pycache__').mkdir(); Path('vadpipe/code/__pycache__/a.pyc').touch()",
    "a lock": "Path('data/raw/tiny/.a.bin.lock').touch()",
    "its output": "Path('data/out').touch()",
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_what_it_does_not_depend_on_may_change(here: Path, case: str) -> None:
    done = run(UNCHANGED[case], "fake", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert Path("out").read_text() == "tiny"


def test_a_stage_without_a_key(here: Path) -> None:
    assert run("pass", "single").returncode == 0
    done = run(set_param("evaluate.top_frames", "3"), "single")
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: evaluate changed while the stage ran")


def test_real_stages_know_their_inputs(tiny: Path) -> None:
    """By the repository's own dvc.yaml: every parameter has a value, every folder of data gives files."""
    shutil.copy(REPO / "dvc.yaml", "dvc.yaml")
    prepare("data/clips/tiny")
    ingested = read_inputs("ingest@tiny")
    assert ingested["params.yaml: ingest.tiny"] == tiny_params()["ingest"]["tiny"]
    assert "data/raw/tiny/train/a1/001.jpg" in ingested
    trained = read_inputs("train@tiny_brightness")
    assert trained["params.yaml: runs.tiny_brightness.dataset"] == "tiny"
    data = {name for name in trained if name.startswith("data/")}
    # A new test clip trains nothing again.
    assert data == {f"data/clips/tiny/train/{name}" for name in ("a1.parquet", "a2.parquet", "clips.json")}
    flow = {name for name in read_inputs("flow@tiny") if name.startswith("data/")}
    # A corrected label computes no flow again.
    assert len(flow) == 7
    assert not any("labels" in name for name in flow)
    for stage, body in YAML(typ="safe").load(Path("dvc.yaml"))["stages"].items():
        section = body.get("foreach", "").strip("${}")
        for key in tiny_params()[section] if section else [""]:
            found = read_inputs(f"{stage}@{key}" if key else stage)
            wanted = [name for name in found if name.startswith("params.yaml: ")]
            assert all(found[name] is not None for name in wanted), (stage, key)
            assert len(wanted) == len(body.get("do", body)["params"])
            assert not any("${" in name for name in found)


def test_an_ingest_whose_data_change_meanwhile_fails(tiny: Path) -> None:
    """The real stage, slowed down so that a label is corrected while it runs; run again, it reads the new one."""
    shutil.copy(REPO / "dvc.yaml", "dvc.yaml")
    (tiny / "slow").mkdir()
    (tiny / "slow" / "ingest.py").write_text(
        "import time\nfrom pathlib import Path\nimport vadpipe.prepare.ingest as module\n"
        "from vadpipe.stage import run_stage\nfrom stages import ingest\n"
        "write_clips = module.write_clips\n"
        "def slow(*arguments):\n"
        "    Path('running').touch()\n"
        "    while not Path('go').exists():\n        time.sleep(0.01)\n"
        "    return write_clips(*arguments)\n"
        "module.write_clips = slow\nrun_stage(ingest.main)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    stage = subprocess.Popen(
        [sys.executable, "slow/ingest.py", "tiny"], env=environment, text=True, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not Path("running").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    with Path("data/raw/tiny/labels.csv").open("a") as file:
        file.write("\n")
    Path("go").touch()
    said = stage.communicate(timeout=60)[1]
    assert stage.returncode == 2
    assert "data/raw/tiny/labels.csv changed while the stage ran" in said
    assert "Traceback" not in said


def test_the_key_comes_from_dvc_or_by_hand(here: Path) -> None:
    assert run("pass", "fake", DVC_STAGE="fake@tiny").returncode == 0
    assert Path("out").read_text() == "tiny"
    # What is given by hand goes first.
    assert run("pass", "fake", "tinypool", DVC_STAGE="fake@tiny").returncode == 0
    assert Path("out").read_text() == "tinypool"
    for key in ((), ("a", "b")):
        done = run("pass", "fake", *key, DVC_STAGE="")
        assert done.returncode == 1
        assert done.stderr == ("usage: python -m stages.fake KEY   (the key of params.yaml that the stage works on)\n")


@pytest.mark.parametrize("key", ["x; touch PWNED #", "y'; touch PWNED; '", "$(touch PWNED)", "../x", "a@b", "A"])
def test_a_key_that_is_no_name_is_refused(here: Path, key: str) -> None:
    for done in (run("pass", "fake", key), run("pass", "fake", DVC_STAGE=f"fake@{key}")):
        assert done.returncode == 2
        assert done.stderr.startswith("error: params.yaml: stage fake: the key ")
        assert done.stderr.count("\n") == 1
    assert not Path("out").exists()
    assert not list(here.rglob("PWNED"))


def test_why_a_stage_failed_is_kept_for_the_table(here: Path) -> None:
    reason = Path(".vadpipe/failed/fake@tiny.txt")
    assert run("raise UserError('a.jpg is cut off; replace it')", "fake", "tiny").returncode == 2
    assert reason.read_text() == "a.jpg is cut off; replace it\n"
    done = run("raise ValueError('shapes\\ndiffer')", "fake", "tiny")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert reason.read_text() == "ValueError: shapes differ (a defect of the program; see its traceback)\n"
    assert run("raise KeyboardInterrupt", "fake", "tiny").returncode == 130
    assert not reason.exists()
    run("raise UserError('x')", "fake", "tiny")
    assert run("pass", "fake", "tiny").returncode == 0
    assert not reason.exists()
    Path("out").unlink()
    Path(".vadpipe/failed").rmdir()
    Path(".vadpipe").rmdir()
    Path(".vadpipe").touch()
    done = run("pass", "fake", "tiny")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_stage_leaves_nothing_half(here: Path, how: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    environment["MEANWHILE"] = "import time; Path('running').touch(); time.sleep(60)"
    stage = subprocess.Popen(
        [sys.executable, "-m", "stages.fake", "tiny"],
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )
    deadline = time.monotonic() + 60
    while not Path("running").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    stage.send_signal(how)
    said = stage.communicate(timeout=30)[1]
    assert stage.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[how]
    assert said == {signal.SIGTERM: "", signal.SIGINT: "interrupted\n"}[how]
    assert not [path for path in here.iterdir() if path.name.startswith((".out", "out"))]


@pytest.mark.parametrize("section", [None, ["a"], 3, {"tiny": None}, {"tiny": 3}])
def test_sections_that_are_no_mapping_do_not_confuse_it(here: Path, section: object) -> None:
    tree = tiny_params()
    tree["ingest"] = section
    write_params(tree)
    assert read_inputs("fake@tiny")["params.yaml: evaluate.bootstrap"] == 50


def test_without_params_or_data(here: Path) -> None:
    shutil.rmtree("data/raw/tiny")
    assert not any(name.startswith("data/raw/tiny") for name in read_inputs("fake@tiny"))
    Path("params.yaml").unlink()
    done = run("pass", "fake", "tiny")
    assert done.returncode == 2
    assert done.stderr == "error: params.yaml is not here; run the command in the root of the repository\n"

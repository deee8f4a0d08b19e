"""One place tells an error that a user can mend from a defect: every kind that libraries raise, made for real."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import SafetensorError

from tests.conftest import REPO
from vadpipe import errors
from vadpipe.errors import UserError, explain, writing

# Every write to it ends as on a full disk. For `open` alone: a library that moves a file there would replace it.
FULL = Path("/dev/full")
NO_SPACE = "no space is left on the device; free some"
needs_full = pytest.mark.skipif(not FULL.is_char_device(), reason="this system has no /dev/full")


def raised(act: Callable[[], object], kind: type[BaseException]) -> BaseException:
    with pytest.raises(kind) as caught:
        act()
    return caught.value


def ended(
    code: str, folder: Path | None = None, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run lines inside `exit_code_2` in a process of their own."""
    lines = "\n    ".join(code.splitlines())
    script = f"from pathlib import Path\nfrom vadpipe.errors import *\nwith exit_code_2():\n    {lines}\n"
    return subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        text=True,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        preexec_fn=before,
    )


@pytest.mark.parametrize("code", sorted({*errors._CANNOT_WRITE, *errors._CANNOT_READ}), ids=errno.errorcode.get)
def test_every_error_of_the_system_in_the_tables_is_a_sentence(code: int) -> None:
    sentence = explain(OSError(code, os.strerror(code), "some/file.bin"))
    if code == errno.EEXIST:  # of writing alone, and told there
        assert sentence is None
        return
    assert sentence is not None
    assert "some/file.bin" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("code", errors._CANNOT_WRITE, ids=errno.errorcode.get)
def test_every_error_of_writing_names_the_output(tmp_path: Path, code: int) -> None:
    out = tmp_path / "out.bin"
    for named in (None, str(out), str(tmp_path / ".out.bin.7.partial" / "part")):
        with pytest.raises(UserError, match=r"cannot write .*out\.bin: .*;"), writing(out):
            raise OSError(code, os.strerror(code), named)


def test_an_error_of_a_file_elsewhere_is_not_one_of_the_output(tmp_path: Path) -> None:
    """A source that may not be read is no reason to say that the output cannot be written."""
    source = str(tmp_path / "elsewhere" / "a.jpg")
    denied = PermissionError(errno.EACCES, "Permission denied", source)
    with pytest.raises(PermissionError) as caught, writing(tmp_path / "here" / "out.bin"):
        raise denied
    assert explain(caught.value) == f"{source} cannot be read: it may not be read; change its permissions"


@needs_full
def test_a_short_write_of_numpy() -> None:
    error = raised(lambda: np.zeros(100_000).tofile("/dev/full"), OSError)
    assert "requested and" in str(error)
    assert error.errno is None  # type: ignore[attr-defined]
    assert NO_SPACE in str(explain(error))


def test_the_text_of_safetensors_on_a_full_disk(tmp_path: Path) -> None:
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert NO_SPACE in str(explain(error))
    with pytest.raises(UserError, match=rf"cannot write .*model: {NO_SPACE}"), writing(tmp_path / "model"):
        raise error


SAVE = {
    "safetensors": "import torch, safetensors.torch as st; st.save_file({'a': torch.zeros(100_000)}, 'out')",
    "PyTorch": "import torch; torch.save({'a': torch.zeros(100_000)}, 'out')",
    "NumPy": "import numpy; numpy.save('out', numpy.zeros(100_000))",
}


@pytest.mark.parametrize("library", SAVE)
def test_a_library_that_may_not_write_further(tmp_path: Path, library: str) -> None:
    """A real limit of the kernel: files may not grow past 20 kB."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    lines = f"try: {SAVE[library]}\nexcept Exception as error: print(explain(error))\n"
    done = ended(f"{lines}with writing(Path('models/x')): {SAVE[library]}", tmp_path, limited)
    assert done.stdout.startswith("cannot write a file: "), done.stderr
    assert done.stderr.startswith("error: cannot write models/x: ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 2


@needs_full
def test_a_copied_folder_on_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "a.txt").write_text("text")

    def copy(source: str, target: str) -> None:
        with open("/dev/full", "wb") as file:
            file.write(Path(source).read_bytes())

    copied = raised(lambda: shutil.copytree(tmp_path / "from", tmp_path / "to", copy_function=copy), shutil.Error)
    assert NO_SPACE in str(explain(copied))
    with pytest.raises(UserError, match=rf"cannot write .*to: {NO_SPACE}"), writing(tmp_path / "to"):
        raise copied


def test_a_copied_folder_whose_file_may_not_be_read(tmp_path: Path) -> None:
    source = tmp_path / "from" / "a.txt"
    source.parent.mkdir()
    source.touch()

    def copy(name: str, _: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", name)

    error = raised(lambda: shutil.copytree(tmp_path / "from", tmp_path / "to/to", copy_function=copy), shutil.Error)
    assert explain(error) == f"{source} cannot be read: it may not be read; change its permissions"
    with pytest.raises(shutil.Error), writing(tmp_path / "to" / "to"):
        raise error


MEMORY = {
    "Python": MemoryError(),
    "NumPy": raised(lambda: np.zeros(2**58, np.uint8), MemoryError),
    "PyTorch on a GPU": RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nGPU 0 has 8 GiB"),
    "PyTorch": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
    ),
    "OpenCV": cv2.error("OpenCV(5.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    "the system": OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    "C++": RuntimeError("std::bad_alloc"),
    "oneDNN": RuntimeError("could not create a primitive"),
}


@pytest.mark.parametrize("whose", MEMORY)
def test_out_of_memory_is_a_sentence(whose: str) -> None:
    sentence = str(explain(MEMORY[whose]))
    assert sentence.startswith("there is not enough memory (")
    assert "lower `batch`" in sentence
    assert "\n" not in sentence


def test_a_file_is_not_blamed_for_want_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow and safetensors say it in the words in which they speak of damage."""
    import PIL.Image
    from safetensors.torch import save_file

    from vadpipe.nn import backbones
    from vadpipe.store.image_files import read_image

    def no_memory(*_: object) -> None:
        raise OSError("out of memory when reading image file")

    monkeypatch.setattr(PIL.Image.Image, "load", no_memory)
    with pytest.raises(MemoryError):
        read_image(cv2.imencode(".bmp", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    monkeypatch.setattr(backbones, "load_file", lambda path: no_memory())
    save_file({}, tmp_path / "a.safetensors")
    with pytest.raises(OSError, match="out of memory"):
        backbones._read(tmp_path / "a.safetensors", None)  # type: ignore[arg-type]


def test_no_further_thread_is_a_sentence() -> None:
    assert str(explain(RuntimeError("can't start new thread"))).startswith("no further thread can be started here; ")


def test_trouble_with_ending_does_not_hide_what_came_first() -> None:
    with pytest.raises(RuntimeError) as found:
        try:
            raise MemoryError
        finally:
            raise RuntimeError("cannot join thread before it is started")
    assert str(explain(found.value)).startswith("there is not enough memory (MemoryError); ")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together with shapes (3,) (4,)"),
        KeyError("heat"),
        AssertionError(),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError("no network"),
        shutil.Error("source and target are the same file"),
        ZeroDivisionError("division by zero"),
    ],
    ids=repr,
)
def test_a_defect_is_none_of_the_users(tmp_path: Path, error: Exception) -> None:
    assert explain(error) is None
    with pytest.raises(type(error)) as caught, writing(tmp_path / "out"):
        raise error
    assert caught.value is error


def test_the_sentence_of_a_user_error_is_its_own(tmp_path: Path) -> None:
    error = UserError("a.jpg is cut off; replace it")
    assert explain(error) == "a.jpg is cut off; replace it"
    with pytest.raises(UserError) as caught, writing(tmp_path / "out"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("raise UserError('a.jpg is cut off; replace it')", 2, "error: a.jpg is cut off; replace it\n"),
        ("open('/nowhere/x')", 2, "error: /nowhere/x cannot be read: it is not here; "),
        ("raise MemoryError", 2, "error: there is not enough memory (MemoryError); "),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise ValueError('shapes')", 1, "Traceback"),
        ("pass", 0, ""),
    ],
)
def test_how_a_process_ends(code: str, exit_code: int, said: str) -> None:
    done = ended(code)
    assert done.returncode == exit_code
    assert done.stderr.startswith(said)
    assert exit_code == 1 or done.stderr.count("\n") <= 1


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    code = (
        "import sys; from vadpipe.errors import exit_code_2\nwith exit_code_2():\n    for i in range(10**6): print(i)"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 0

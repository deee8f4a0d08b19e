"""`vadpipe check` knows what the stages would refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages import ingest
from tests.conftest import changed_params, ingest_params, tiny_params, write_params
from vadpipe import demands, machine, params
from vadpipe.errors import UserError


def refusal(**changes: Any) -> str:
    write_params(changed_params(**changes))
    with pytest.raises(UserError) as error:
        demands.check(params.load())
    return str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods__knn__score__k": 10**12}, "k: 1000000000000 is larger than any number that makes sense"),
        ({"evaluate__smoothing_s": float("inf")}, "evaluate.smoothing_s: input should be a finite number"),
        ({"evaluate__smoothing_s": float("nan")}, "evaluate.smoothing_s: input should be"),
        ({"evaluate__box_area": [0.5, 0.1]}, "expected the smaller bound first"),
        ({"methods__pasted__train__size": [0.4, 0.02]}, "expected the smaller bound first"),
        ({"ingest__tiny__reader": "foldr"}, "there is no reader 'foldr'; did you mean 'folder'?"),
        ({"ingest__tiny__end": 3.0, "ingest__tiny__start": 5.0}, "`end` (3 s) is not behind `start` (5 s)"),
        ({"ingest__tiny__rate": 5.0, "ingest__tiny__every": 2}, "give `rate` or `every`, not both"),
        ({"features__tiny_net__height": 10**6}, "features.tiny_net.height: input should be less than or equal to 8192"),
        ({"features__tiny_net__batch": 10**8}, "features.tiny_net: a batch takes at least 2,764.8 GB of memory"),
        ({"methods__feature_lstm__train__hidden": 10**6}, "its network takes at least 64,000.0 GB of memory"),
        ({"methods__conv_ae__train__channels": [4, 4, 8, 10**9]}, "of memory"),
    ],
)
def test_numbers_that_no_stage_takes_are_named(tiny: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(**changes)


def test_the_memory_of_this_machine_is_told(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_LIMIT", tiny / "memory.max")
    (tiny / "memory.max").write_text("100000\n")
    assert machine.memory() == 100_000
    assert "a batch takes at least" in refusal()
    (tiny / "memory.max").write_text("max\n")
    write_params(tiny_params())
    demands.check(params.load())


def test_frames_without_a_rate_are_found_before_a_stage_runs(tiny: Path) -> None:
    assert "ingest.tiny.fps is null, but test/b1 is a folder of frames" in refusal(ingest__tiny__fps=None)


def test_flow_too_small_for_its_clips_is_found_once_they_are_here(tiny: Path) -> None:
    ingest.main("tiny")
    assert "12x18 pixels" not in refusal(flow__tiny__scale=0.4)
    assert "its flow at scale 0.4 would be 10x14 pixels, but DIS needs 12" in refusal(flow__tiny__scale=0.4)


def test_loose_images_have_no_time(tiny: Path) -> None:
    message = refusal(ingest__tinypool=ingest_params(reader="pool", rate=5.0))
    assert "ingest.tinypool.rate is 5, but these are loose images" in message


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.check_disk(tmp_path / "a/b/c", 1000, "free some")
    assert "will take 0 MB" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"will take 1,000,000,000\.0 GB, but .* free there; lower its scale"):
        machine.check_disk(tmp_path / "a/b/c", 1e18, "lower its scale")

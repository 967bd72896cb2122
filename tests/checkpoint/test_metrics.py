"""metrics.jsonl: strict JSON line by line, which a crash cannot spoil and a resume does not repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engram.checkpoint.metrics import MetricsLog, read_metrics
from engram.core.errors import RunError


def steps(path: Path) -> list[tuple[str, int]]:
    return [(r["kind"], r["step"]) for r in read_metrics(path)]


def test_reads_back_while_open(tmp_path: Path):
    log = MetricsLog(tmp_path / "m")
    log.write("step", 1, **{"model/loss": 0.25}, layers={"a.weight": 1.5})
    log.write("eval", 2, metrics={"accuracy": 1.0}, best=True, note="Zürich \u2028 \x85 line\nbreak")
    assert read_metrics(tmp_path / "m") == [
        {"kind": "step", "step": 1, "model/loss": 0.25, "layers": {"a.weight": 1.5}},
        {"kind": "eval", "step": 2, "metrics": {"accuracy": 1.0}, "best": True, "note": "Zürich \u2028 \x85 line\nbreak"},
    ]
    log.close()
    assert len((tmp_path / "m").read_bytes().splitlines()) == 2


def test_lines_are_strict_json(tmp_path: Path):
    log = MetricsLog(tmp_path / "m")
    log.write("step", 1, a=float("nan"), b={"c": -float("inf")}, d=[float("nan"), (1.5, float("inf"))], e=1)
    log.close()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads((tmp_path / "m").read_text(), parse_constant=refuse)
    assert found == {"kind": "step", "step": 1, "a": None, "b": {"c": None}, "d": [None, [1.5, None]], "e": 1}


@pytest.mark.parametrize(
    ("value", "kept"),
    [(1e-9, 1e-9), (1.23456789e-12, 1.2345679e-12), (1234567.891, 1234567.9), (3e38, 3e38), (0.0, 0.0)],
)
def test_eight_digits_are_kept(value: float, kept: float, tmp_path: Path):
    """Of the number, not behind the point: small learning rates and losses do not become 0."""
    log = MetricsLog(tmp_path / "m")
    log.write("step", 1, value=value)
    log.close()
    assert read_metrics(tmp_path / "m")[0]["value"] == kept


def test_a_torn_line_is_skipped(tmp_path: Path):
    """However the last line was cut, the ones before it are read and the next one is written whole."""
    path = tmp_path / "m"
    whole = '{"kind": "step", "step": 1, "loss": 0.5}\n{"kind": "step", "step": 2, "text": "Zürich"}\n'.encode()
    first = whole.index(b"\n") + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        read = read_metrics(path)
        log = MetricsLog(path)
        log.write("step", 3)
        log.close()
        complete = [1] * (cut >= first - 1) + [2] * (cut >= len(whole) - 1)
        assert [r["step"] for r in read] == complete
        assert [r["step"] for r in read_metrics(path)] == [*complete, 3]


NO_RECORDS = ["[]", "3", '"step"', "null", "{}", '{"kind": "step"}', '{"step": 1}', '{"kind": "step", "step": "x"}', ""]


@pytest.mark.parametrize("line", NO_RECORDS)
def test_lines_that_are_no_records_are_skipped(line: str, tmp_path: Path):
    (tmp_path / "m").write_text(f'{{"kind": "step", "step": 1}}\n{line}\n{{"kind": "step", "step": 2}}\n')
    assert steps(tmp_path / "m") == [("step", 1), ("step", 2)]


def test_what_a_resumed_run_did_again_counts_once(tmp_path: Path):
    path = tmp_path / "m"
    for begin, end in ((0, 6), (4, 8), (4, 5), (5, 9)):
        log = MetricsLog(path)
        if begin:
            log.write("resume", begin)
        for step in range(begin + 1, end + 1):
            log.write("step", step, run=begin, end=end)
        log.close()
    assert [s for k, s in steps(path) if k == "step"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert [s for k, s in steps(path) if k == "resume"] == [4, 4, 5]
    ends = {r["step"]: r["end"] for r in read_metrics(path) if r["kind"] == "step"}
    assert ends == {1: 6, 2: 6, 3: 6, 4: 6, 5: 5, 6: 9, 7: 9, 8: 9, 9: 9}


def test_no_file_is_no_records(tmp_path: Path):
    assert read_metrics(tmp_path / "m") == []


def test_a_full_disk_is_one_line(tmp_path: Path):
    """/dev/full takes no byte, as a full disk does."""
    (tmp_path / "m").symlink_to("/dev/full")
    log = MetricsLog(tmp_path / "m")
    with pytest.raises(RunError, match=r"the disk is full; free some space; the last saved state is kept"):
        log.write("step", 1)
    with pytest.raises(RunError, match="the disk is full"):
        log.close()


def test_a_missing_folder_is_one_line(tmp_path: Path):
    with pytest.raises(RunError, match="cannot write"):
        MetricsLog(tmp_path / "no" / "m")

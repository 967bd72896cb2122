"""The command line: what goes where, which exit code, and what the line says."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engram.app.cli import failures, main
from engram.app.cli.output import number, plain, typed

TINY = ["widths=4,8", "epochs=1", "threads=1", "precision=fp32"]


@dataclass
class Done:
    code: int
    out: str
    err: str


Engram = Callable[..., Done]


@pytest.fixture
def engram(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engram:
    """Runs a command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENGRAM_DEBUG", raising=False)

    def call(*args: str) -> Done:
        capsys.readouterr()
        code = main(args)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the default recipe, made by the command line."""
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *TINY, "--out", str(path), "--quiet", "--no-report"]) == 0
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a table."""
    path = tmp_path_factory.mktemp("runs") / "iris"
    assert main(["train", "iris", "hidden=8", "epochs=2", "threads=1", "--out", str(path), "--quiet", "--no-report"]) == 0
    return path


# help


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["--version"], ["train", "--help"], ["list"], ["new", "x"]])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path):
    code = (
        f"import sys; from engram.app.cli import main; code = main({words});"
        "print(sorted({'torch', 'pandas', 'numpy', 'rich', 'sklearn'} & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    heavy = done.stderr.strip().splitlines()[-1]
    assert heavy == ("['rich']" if words == ["list"] else "[]")
    assert done.stdout


def test_predicting_does_not_import_the_compiler(table: Path):
    code = (
        f"import sys, engram; engram.load({str(table)!r}).predict([[5.1, 3.5, 1.4, 0.2]]);"
        "print(sorted({'torch', 'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['torch']"  # the compiler takes as long to import as the rest of torch


def test_help_lists_every_command(engram: Engram):
    page = engram("--help").out
    for name in ("train", "resume", "predict", "eval", "report", "compare", "find-lr", "list", "new", "completion"):
        assert f"\n  {name} " in page
        assert engram(name, "--help").out.startswith(f"Usage: engram {name}")
    assert "130 interrupted" in page


def test_knobs_of_a_recipe(engram: Engram):
    done = engram("train", "cnn", "--help")
    assert done.code == 0
    for part in ("Knobs of cnn:", "Knobs of every recipe:", "Knobs optim.*:", "widths=32,64", "optim.lr=0.002", "[max | avg]"):
        assert part in done.out
    assert "which was" not in done.out
    assert "target=" not in done.out
    page = " ".join(engram("train", "iris", "--help").out.split())
    assert "training mlp" in page
    assert "target=" in page


# usage errors: exit code 2, one line, what to write instead


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "no command 'trian' (did you mean train?)"),
        (["cnn"], "no command 'cnn' (did you mean engram train cnn?)"),
        (["--jsn"], "no option --jsn"),
        (["report", "r", "--opn"], "no option --opn (did you mean --open?)"),
        (["train", ""], "no recipe or data called ''"),
        (["find-lr", "cnn", "--lr", "1"], "write optim.lr=1"),
        (["new", "none/x"], "there is no folder none; make it first"),
        (["train", "--epochs", "5"], "no option --epochs; knobs have no dashes: write epochs=5"),
        (["train", "--epochs=5"], "write epochs=5"),
        (["train", "cnn", "--lr", "0.1"], "write optim.lr=0.1"),
        (["train", "--jsn"], "no option --jsn (did you mean --json?)"),
        (["train", "cnn", "epochs", "5"], "unexpected argument 'epochs'; write epochs=5"),
        (["train", "epochs", "5"], "unexpected argument 'epochs'; write epochs=5"),
        (["train", "cnn", "epochs", "=", "5"], "write epochs=5"),
        (["train", "cnn", "mlp"], "unexpected argument 'mlp'; knobs are written key=value"),
        (["train", "cn"], "no recipe or data called 'cn' (did you mean cnn?)"),
        (["train", "cnn", "epochz=5"], "cnn has no knob 'epochz' (did you mean epochs?)"),
        (["train", "cnn", "lr=5"], "did you mean optim.lr?"),
        (["train", "cnn", "epochs=many"], "epochs=many is not a number"),
        (["train", "cnn", "epochs="], "epochs= is not a number"),
        (["train", "cnn", "dropout=2"], "dropout=2 is out of range: 0 to 0.95"),
        (["train", "cnn", "device=cuda:99"], "device=cuda:99 is not on this machine"),
        (["train", "cnn", "out=x"], "out is not a knob; write --out DIR"),
        (["train", "own.py"], "no recipe file own.py; `engram new own` writes one"),
        (["new", "cnn"], "cnn is a built-in recipe"),
        (["new", "2fast"], "'2fast' cannot be the name of a recipe"),
        (["new"], "missing argument"),
        (["list", "run"], "'run' is not one of"),
        (["compare", "runs/one"], "compare takes two runs or more, got 1"),
        (["predict", "runs/one", "x", "--rows", "0"], "0 is not in the range"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_usage_errors(engram: Engram, words: list[str], line: str):
    done = engram(*words)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("engram: error: ")
    assert done.err.count("\n") == 1
    assert line in done.err


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["train", "house.csv"], 3, "there is no file house.csv here"),
        (["train", "cnn", "data=nowhere/"], 3, "nowhere"),
        (["resume", "runs/none"], 1, "no run at runs/none"),
        (["predict", "runs/none", "x"], 1, "no run at runs/none"),
        (["eval", "."], 1, "is not a run folder"),
        (["report", "damaged"], 1, "damaged/run.json is damaged"),
        (["predict", "newer", "x"], 1, "made by a newer Engram"),
        (["compare", "newer", "damaged"], 1, "newer"),
        (["train", "data=house.csv"], 3, "there is no file house.csv here"),
    ],
)
def test_other_errors(engram: Engram, words: list[str], code: int, line: str):
    for name, text in {
        "damaged": "{not json",
        "newer": '{"recipe": "cnn", "format": 99}',
    }.items():
        Path(name).mkdir()
        Path(name, "run.json").write_text(text)
    done = engram(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("engram: error: ")
    assert done.err.count("\n") == 1
    assert line in done.err


def test_failures_as_json(engram: Engram):
    done = engram("train", "cnn", "epochz=5", "--json")
    said = json.loads(done.out)
    assert (done.code, said["exit_code"]) == (2, 2)
    assert done.err == f"engram: error: {said['error']}\n"


def test_every_kind_of_failure_has_its_line(capsys: pytest.CaptureFixture[str]):
    cases = [
        (KeyboardInterrupt(), "engram: interrupted\n", 130),
        (
            OSError(28, "No space left on device", "x/y"),
            "engram: error: cannot write x/y: the disk is full; free some space\n",
            1,
        ),
        (PermissionError(13, "Permission denied", "x"), "engram: error: no permission for x; choose another place", 1),
        (FileNotFoundError(2, "No such file", "x"), "engram: error: there is no x\n", 1),
        (MemoryError(), "engram: error: out of memory", 5),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "engram: error: out of memory", 5),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "engram: error: out of memory", 5),
        (ValueError("two\nlines"), "engram: error: ValueError: two lines (this is a bug; ENGRAM_DEBUG=1 shows", 1),
    ]
    for error, line, code in cases:
        assert failures.exit_code_of(error) == code
        said = capsys.readouterr().err
        assert said.startswith(line)
        assert said.count("\n") == 1


def test_tracebacks_are_for_those_who_ask(engram: Engram, monkeypatch: pytest.MonkeyPatch):
    assert "Traceback" not in engram("train", "cn").err
    monkeypatch.setenv("ENGRAM_DEBUG", "1")
    assert "Traceback" in engram("train", "cn").err


def test_python_m():
    done = subprocess.run([sys.executable, "-m", "engram", "trian"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("engram: error: no command 'trian'")


# the way of a run


def test_train_prints_the_run_and_nothing_else(engram: Engram):
    done = engram("train", *TINY, "--no-report")
    assert done.code == 0
    path = Path(done.out.strip())
    assert done.out == f"{path}\n"
    assert path.parent == Path("runs")
    assert (
        json.loads((path / "run.json").read_text())["command"]
        == "engram train widths=4,8 epochs=1 threads=1 precision=fp32 --no-report"
    )
    assert str(path) in done.err
    assert "\x1b" not in done.err  # no animation, no colours: not a terminal
    assert "\r" not in done.err


def test_words_in_any_order_the_last_of_a_key_counts(engram: Engram):
    done = engram(
        "train", "--json", "epochs=9", "widths=4", "--quiet", "cnn", "threads=1", "epochs=1", "--no-report", "optim.lr=0.01"
    )
    assert (done.code, done.err) == (0, "")
    said = json.loads(done.out)
    info = json.loads(Path(said["run"], "run.json").read_text())
    assert (info["recipe"], info["knobs"]["epochs"], info["knobs"]["optim.lr"]) == ("cnn", 1.0, 0.01)
    assert said["result"]["metrics"]["accuracy"]["low"] < said["result"]["metrics"]["accuracy"]["value"]
    assert said["report"] is None


def test_out_that_holds_a_run_is_refused(engram: Engram, run: Path):
    done = engram("train", *TINY, "--out", str(run))
    assert done.code == 2
    assert "already holds a run" in done.err


def test_dry_run_writes_nothing(engram: Engram, tmp_path: Path):
    done = engram("train", "cnn", *TINY, "--dry-run", "--json")
    assert done.code == 0
    assert json.loads(done.out)["knobs"]["widths"] == [4, 8]
    assert list(tmp_path.iterdir()) == []


def test_the_starter_recipe_trains_and_predicts(engram: Engram):
    assert engram("new", "my_net").out == "my_net.py\n"
    text = Path("my_net.py").read_text()
    assert "class MyNet(Recipe)" in text
    assert max(map(len, text.splitlines())) <= 128
    assert engram("new", "my_net").code == 2
    done = engram("train", "my_net.py", "epochs=1", "hidden=8", "threads=1", "--no-report", "--out", "own")
    assert done.code == 0, done.err
    assert engram("eval", "own", "--recipe", "my_net.py").code == 0
    for words in (["predict", "own", "x.png"], ["resume", "own"], ["eval", "own", "x"]):
        refused = engram(*words)  # the folder alone never makes the user's code run
        assert refused.code in (0, 2)
        assert words[0] == "resume" or "--recipe FILE" in refused.err
    assert "hidden=64" in engram("train", "my_net.py", "--help").out


def test_predict_one_image(engram: Engram, run: Path, monkeypatch: pytest.MonkeyPatch):
    image = picture()
    done = engram("predict", str(run), image)
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert list(row)[:3] == ["input", "label", "probability"]
    assert row["input"].endswith("one.png")
    assert float(row[f"p({row['label']})"]) == float(row["probability"])
    assert sum(float(v) for k, v in row.items() if k.startswith("p(")) == pytest.approx(1, abs=1e-5)
    monkeypatch.setattr("engram.app.cli.predict.is_terminal", lambda: True)
    label, probability = engram("predict", str(run), image).out.split()
    assert label == row["label"]
    assert float(probability) == pytest.approx(float(row["probability"]), abs=1e-5)


def test_predict_and_eval_answer_the_pictures_that_can_be_read(engram: Engram, run: Path):
    image = Path(picture())
    for name in ("3/a.png", "3/b.png", "3/c.png", "7/a.png", "7/b.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(b"" if name == "3/b.png" else image.read_bytes())
    Path("photos/7/b.png").unlink()
    Path("photos/7/b.png").symlink_to("nowhere.png")
    whole = engram("predict", str(run), "photos")
    assert whole.code == 0, whole.err
    assert [row["input"] for row in csv.DictReader(io.StringIO(whole.out))] == ["3/a.png", "3/c.png", "7/a.png"]
    assert "3/b.png is empty" in whole.err
    assert "2 of 5 images cannot be read" in whole.err.splitlines()[-1]
    assert len(engram("predict", str(run), "photos", "--rows", "1").out.splitlines()) == 4
    lines = [json.loads(line) for line in engram("predict", str(run), "photos", "--json").out.splitlines()]
    assert [line["input"] for line in lines if "unreadable" in line] == ["3/b.png", "7/b.png"]
    assert all(("label" in line) != ("unreadable" in line) for line in lines)
    measured = engram("eval", str(run), "photos", "--json")
    assert (measured.code, json.loads(measured.out)["rows"]) == (0, 3)
    assert measured.err.count("2 of 5 images cannot be read and are left out") == 1
    Path("photos/3/a.png").write_bytes(b"")
    for words in (["predict", str(run), "photos", "--out", "out.csv"], ["eval", str(run), "photos"]):
        most = engram(*words)
        assert most.code == 3
        assert "3 of 5 images cannot be read; the first" in most.err
    assert not Path("out.csv").exists()
    one = engram("predict", str(run), "photos/3/a.png")
    assert (one.code, one.out) == (3, "")
    assert one.err.splitlines() == ["engram: error: photos/3/a.png is empty (0 bytes); delete it or get it again"]


def test_predict_json_lines(engram: Engram, run: Path):
    done = engram("predict", str(run), picture(), "--json")
    (line,) = done.out.splitlines()
    said = json.loads(line)
    assert said["label"] in said["probabilities"]


def test_predict_far_from_zero(engram: Engram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Seconds since 1970 are predicted to the second."""
    rows = [f"{i / 50 % 1:.3f},{1_700_000_000 + 100 * (i / 50 % 1):.2f}" for i in range(0, 3000, 7)]
    Path("when.csv").write_text("\n".join(["a,when", *rows]))
    assert engram("train", "mlp", "data=when.csv", "allow=leak", "hidden=8", "epochs=3", "--out", "r", "--no-report").code == 0
    values = [row["value"] for row in csv.DictReader(io.StringIO(engram("predict", "r", "when.csv").out))]
    assert len({float(v) for v in values}) > 40
    monkeypatch.setattr("engram.app.cli.predict.is_terminal", lambda: True)
    Path("one.csv").write_text(f"a,when\n{rows[0]}\n")
    assert abs(float(engram("predict", "r", "one.csv").out) - float(values[0])) < 0.01


def test_predict_a_table_from_standard_input(engram: Engram, table: Path, monkeypatch: pytest.MonkeyPatch):
    from engram.data.sources import table_frames

    frame, target, _ = table_frames("iris")
    text = frame.drop(columns=target).to_csv(index=False)
    Path("new.csv").write_text(text)
    from_file = engram("predict", str(table), "new.csv").out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert engram("predict", str(table), "-").out == from_file
    rows = list(csv.DictReader(io.StringIO(from_file)))
    assert len(rows) == 150
    assert [r["input"] for r in rows[:2]] == ["1", "2"]
    labels = [r["label"] for r in csv.DictReader(io.StringIO(engram("predict", str(table), "new.csv", "--rows", "7").out))]
    assert labels == [r["label"] for r in rows]
    assert engram("predict", str(table), "new.csv", "--out", "labels.csv").out == ""
    assert Path("labels.csv").read_text() == from_file
    assert [p.name for p in Path().iterdir() if p.name.endswith(".tmp")] == []


def test_predict_answers_the_json_lines_above_a_bad_one(engram: Engram, table: Path):
    names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    row = json.dumps(dict.fromkeys(names, 2.5))
    for bad, said in (("{", "line 4 of t.jsonl is not JSON"), ("7", "line 4 of t.jsonl is not a JSON object")):
        Path("t.jsonl").write_text(f"{row}\n{row}\n{row}\n{bad}\n{row}\n")
        done = engram("predict", str(table), "t.jsonl")
        assert done.code == 3
        assert said in done.err
        assert len(done.out.splitlines()) == 4  # names and three rows


def test_predict_leaves_no_half_written_file(engram: Engram, table: Path):
    Path("bad.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n1,2,3,4\n1,2,3,4\n1,2,long,4\n"
    )
    done = engram("predict", str(table), "bad.csv", "--rows", "1", "--out", "labels.csv")
    assert done.code == 3
    assert not Path("labels.csv").exists()


def test_predict_no_such_input(engram: Engram, table: Path):
    done = engram("predict", str(table), "none.csv")
    assert (done.code, done.out) == (3, "")


def test_eval(engram: Engram, run: Path):
    done = engram("eval", str(run))
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["METRIC", "VALUE", "95", "%", "LOW", "95", "%", "HIGH"]
    result = json.loads(engram("eval", str(run), "--json").out)
    accuracy = next(line.split() for line in lines if line.startswith("accuracy"))
    assert accuracy[1:] == [number(result["metrics"]["accuracy"][k]) for k in ("value", "low", "high")]
    start = next(i for i, line in enumerate(lines) if line.startswith("CLASS"))
    assert len(lines) - start == 11  # ten digits


def test_eval_on_own_rows(engram: Engram, table: Path):
    from engram.data.sources import table_frames

    frame = table_frames("iris")[0]
    frame.to_csv("labelled.csv", index=False)
    assert json.loads(engram("eval", str(table), "labelled.csv", "--json").out)["rows"] == 150


def test_data_alone_picks_the_network(engram: Engram):
    found = json.loads(engram("train", "data=iris", "hidden=8", "threads=1", "--dry-run", "--json").out)
    assert (found["recipe"], found["knobs"]["data"]) == ("mlp", "iris")


def test_compare(engram: Engram, run: Path, tmp_path: Path):
    engram("train", *TINY, "epochs=2", "--out", "other", "--quiet", "--no-report")
    done = engram("compare", str(run), "other")
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == [run.name, "other"]
    assert next(line for line in lines if line.startswith("epochs")).split() == ["epochs", "1", "2"]
    said = json.loads(engram("compare", str(run), "other", "--json").out)
    assert lines[-1] == said["pairs"][0]["sentence"]


def test_find_lr(engram: Engram):
    words = ["iris", "hidden=8", "threads=1"]
    done = engram("find-lr", *words)
    assert done.code == 0
    names = [line.split()[0] for line in done.out.splitlines()]
    assert names == ["suggested", "range", "confidence"]
    said = json.loads(engram("find-lr", *words, "--json").out)
    assert said["low"] <= said["suggested"] <= said["high"]
    assert list(Path().iterdir()) == []


def test_report(engram: Engram, table: Path):
    done = engram("report", str(table))
    assert (done.code, done.out) == (0, f"{table}/report.html\n")
    assert (table / "report.html").read_text().lstrip().lower().startswith("<!doctype html")


def test_list_shows_runs_newest_first(engram: Engram):
    for name, age in (("a-001", 0), ("b-001", 50)):
        Path("runs", name).mkdir(parents=True)
        made = Path("runs", name, "run.json")
        made.write_text('{"recipe": "cnn", "created": "2026-01-02T03:04:05+00:00", "data": {"title": "[red] data"}}')
        os.utime(made, (1_000_000 + age, 1_000_000 + age))
    Path("runs/broken-001").mkdir()
    Path("runs/broken-001/run.json").write_text("{")
    os.utime("runs/broken-001/run.json", (1, 1))
    found = json.loads(engram("list", "--json").out)
    assert [r["run"] for r in found["runs"]] == ["runs/b-001", "runs/a-001", "runs/broken-001"]
    assert [r["state"] for r in found["runs"]] == ["unfinished", "unfinished", "damaged"]
    assert found["recipes"]["cnn"].startswith("Images to classes")
    assert "[red] data" in engram("list", "runs").out
    assert "iris" in engram("list", "data").out


# how it behaves in a shell


def test_a_closed_pipe_ends_quietly(table: Path, tmp_path: Path):
    (tmp_path / "many.csv").write_text(
        "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n" + "1,2,3,4\n" * 5_000
    )
    code = f'{sys.executable} -m engram predict {table} {tmp_path / "many.csv"} | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    header, status = done.stdout.splitlines()
    assert header.startswith("input,label,probability")
    assert status == "0"


def test_interrupted_training_goes_on_to_the_same_weights(engram: Engram):
    knobs = ["widths=4", "steps=600", "evals=30", "threads=1", "precision=fp32", "--no-report"]
    command = [sys.executable, "-m", "engram", "train", *knobs, "--out", "cut"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step"):  # the first evaluation: training is under way
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1].endswith("engram resume cut")
    assert "error" not in err.splitlines()[-1]
    *_, last = Path("cut/metrics.jsonl").read_text().splitlines()
    assert json.loads(last)["step"] < 600
    assert engram("resume", "cut", "--no-report").out == "cut\n"
    assert engram("train", *knobs, "--out", "whole", "--quiet").code == 0
    first, second = load_file("whole/weights.safetensors"), load_file("cut/weights.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(engram: Engram, tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    done = engram("train", *TINY, "--out", "closed/run")
    assert done.code == 1
    assert "no write permission" in done.err


# figures in words


def test_numbers_and_values_as_text():
    assert [number(v) for v in (0.98765, 12345.6, 1797, None, float("nan"), "cat")] == [
        "0.9877",
        "12,346",
        "1,797",
        "-",
        "-",
        "cat",
    ]
    assert [typed(v) for v in ((32, 64), True, None, 0.002, "x", ())] == ["32,64", "true", "none", "0.002", "x", ""]
    assert plain({"a": (1, float("inf")), "b": Path("x")}) == {"a": [1, None], "b": "x"}


def picture() -> str:
    """A grey picture of 8x8 pixels in the current folder."""
    from PIL import Image

    Image.linear_gradient("L").resize((8, 8)).save("one.png")
    return "one.png"

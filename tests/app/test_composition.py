"""Whether pictures show what was asked: the judge, and the counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import engram
from engram.app import composition as module
from engram.app import shapes_judge
from engram.app.composition import composition
from engram.app.judge import learn
from engram.app.shapes_judge import HEADS, Judge, learn_shapes, see
from engram.core.errors import ConfigError
from engram.data import shapes
from engram.data.captions import captions

torch.set_num_threads(1)


def test_held_out_prompts_are_of_combinations_that_training_lacks() -> None:
    prompts = module._of_shapes(96, 0)
    assert sum(p.rows for p in prompts if p.group == "held out") == 96
    assert sum(p.rows for p in prompts if p.group == "seen") == 96
    train = {(s.shape, s.colour, s.place) for s in shapes.combinations("train")}
    for p in prompts:
        combo = (p.wanted["shape"], p.wanted["colour"], p.wanted["place"])
        assert (combo in train) == (p.group == "seen")
        assert shapes.SHAPES[combo[0]] in p.text.split()
        said = [w for w in p.text.split() if w in ("small", "little", "medium", "big", "large")]
        assert bool(said) == ("size" in p.wanted)
        assert not said or said[0] in shapes.SIZES[list(shapes.SIZES)[p.wanted["size"]]]
    assert len({p.text.split()[0] for p in prompts}) > 3  # several phrasings


def test_judge_learns_and_knows_junk() -> None:
    net = learn_shapes(16, steps=40)
    drawn = shapes.draw("test", 400, seed=9, side=16)
    seen = see(net, torch.from_numpy(drawn.pixels))
    right = {h: float((seen[h].numpy() == drawn.scenes[:, i]).mean()) for i, h in enumerate(HEADS)}
    assert right["place"] > 0.5  # after 40 steps; chance is 1/9
    assert right["colour"] > 0.4  # chance is 1/8
    x, y = shapes_judge._lesson(np.array(shapes.combinations("train"))[:, :3], np.random.default_rng(0), 32)
    assert (y[-shapes_judge.JUNK :, 0] == len(shapes.SHAPES)).all()
    assert (y[-shapes_judge.JUNK :, 1:] == -1).all()
    assert (x[-shapes_judge.JUNK] == torch.tensor(shapes.GROUND)[:, None, None]).all()
    assert (y[: -shapes_judge.JUNK, 0] < len(shapes.SHAPES)).all()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> engram.Run:
    return engram.train(
        "image_gpt", data="shapes", size=16, rows=96, codes=8, code_width=4, widths=(8, 8), blocks=0, layers=1, heads=1,
        width=8, steps=6, batch=16, evals=1, threads=1, progress=False, report=False, out=tmp_path_factory.mktemp("runs") / "a",
    )  # fmt: skip


def test_counting(run: engram.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge that always sees the same: its shares are those of the prompts that ask for it."""
    seen = {"shape": 0, "colour": 2, "place": 4, "size": 1}

    def judge(side: int, say: Any) -> Judge:
        assert side == 16
        return Judge("sees a blue circle", lambda x: {h: torch.full((len(x),), v) for h, v in seen.items()}, {"all": 1.0})

    monkeypatch.setattr(module, "shapes_judge", judge)
    result = composition(run, n=48)
    held = result["groups"]["held out"]
    assert held["rows"] == 48
    assert held["shape"]["value"] == pytest.approx(8 / 48)
    assert held["colour"]["value"] == pytest.approx(6 / 48)
    wanted = sum((s.shape, s.colour, s.place) == (0, 2, 4) for s in shapes.combinations("test")) / 48
    assert held["all"]["value"] == pytest.approx(wanted)
    assert held["all"]["low"] <= wanted <= held["all"]["high"]
    assert all(f["wrong"] <= f["rows"] for f in held["failed"])
    assert (run.path / "composition.json").exists()


def test_what_cannot_be_measured(run: engram.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="n=3 must be at least 48"):
        composition(run, n=3)
    monkeypatch.setattr(module, "shapes_judge", lambda *_: pytest.fail("the judge was trained first"))
    with pytest.raises(ConfigError, match="steps=3 means nothing to this run"):
        composition(run, n=48, steps=3)
    other = engram.train("cnn", widths=(4,), steps=2, threads=1, progress=False, report=False, out=tmp_path / "cnn")
    with pytest.raises(ConfigError, match="makes no pictures of prompts"):
        composition(other)


def test_the_judge_of_digits_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained once for a set and a side; a damaged file is trained again."""
    trained, said = [], []

    def learned(x: torch.Tensor, y: torch.Tensor, outputs: int) -> Any:
        trained.append(tuple(x.shape[1:]))
        return learn(x, y, outputs, steps=3)

    monkeypatch.setattr(module, "learn", learned)
    monkeypatch.setattr(shapes_judge, "cache_folder", lambda: tmp_path)
    specs: list[Any] = [captions("digit_names", batch=8, size=size).spec for size in (8, 12)]
    pictures = torch.randint(256, (300, 1, 8, 8), dtype=torch.uint8)
    first, again, other = (module.digits_judge(spec, said.append) for spec in (specs[0], specs[0], specs[1]))
    assert trained == [(1, 8, 8), (1, 12, 12)]
    assert len(said) == 2
    assert (again.about, again.accuracy) == (first.about, first.accuracy)
    assert torch.equal(again.look(pictures)["digit"], first.look(pictures)["digit"])
    assert "trained on 1," in other.about
    for path in (tmp_path / "judges").iterdir():
        path.write_bytes(b"damaged")
    assert module.digits_judge(specs[0]).about == first.about
    assert len(trained) == 3

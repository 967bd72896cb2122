"""Judges learn the same network from the same pictures and are kept; samples are measured beside real pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import engram
from engram.app import judge as judging
from engram.app.cli import main
from engram.app.fidelity import Made, draw, fidelity, figures, train_on_samples
from engram.app.judge import Eye, Judge, gather, judge_named, learn, own_judge, plain_data, right, run_judge, turned
from engram.app.run import Run
from engram.core.errors import ConfigError, DataError, RunError
from engram.models.inception import Inception, from_weights
from engram.recipes.cnn import Cnn


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path_factory.getbasetemp() / "judges"))
    monkeypatch.setattr(judging, "STEPS", 50)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "vae"
    return engram.train("vae", steps=60, conditional=True, hidden=(32,), latent=4, out=out, progress=False, report=False)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    x, y = gather(plain_data(Cnn()), "train", 2000)
    assert y is not None
    return x, y


def test_pictures_come_back_as_the_bytes_they_were(digits: tuple[Tensor, Tensor]) -> None:
    data = plain_data(Cnn(seed=3))
    x, y = gather(data, "test", 10_000)
    assert x.dtype == torch.uint8
    assert len(x) == data.size("test") == len(y if y is not None else [])
    assert torch.equal(x[5], data.spec.decode_uint8(data.raw("test", [5])[0]))  # type: ignore[attr-defined]
    assert len(gather(data, "train", 100)[0]) == 100


def test_learning_repeats_and_leaves_the_random_state_alone(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = learn(x, y, 10)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    two, other = learn(x, y, 10), learn(x, y, 10, steps=20, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert right(one, x, y) / len(x) > 0.9 > right(other, x, y) / len(x)


def test_features_have_mean_square_one_and_give_the_logits(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    eye = learn(x, y, 10, steps=20)
    with torch.no_grad():
        torch.testing.assert_close(eye.features(x[:9])[1], eye(x[:9]))
        eye.rescale(x)
        features, logits = eye.features(x)
        torch.testing.assert_close(logits, eye(x))
    assert features.shape == (len(x), 128)
    assert float(features.square().mean()) == pytest.approx(1, rel=1e-2)


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 9, 17), (1, 70, 64)])
def test_judges_take_pictures_of_any_shape(shape: tuple[int, int, int]) -> None:
    eye = Eye(shape, 4).eval()
    assert eye.features(torch.zeros(2, *shape, dtype=torch.uint8))[0].shape == (2, 128)


def test_turns_are_all_different_and_balanced() -> None:
    x = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    turns, which = turned(x, 8)
    assert which.tolist() == list(range(8))
    assert len({tuple(t.flatten().tolist()) for t in turns}) == 8
    assert torch.equal(turns[0], x[0])
    flat, which = turned(torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3), 4)
    assert len({tuple(t.flatten().tolist()) for t in flat}) == 4
    many, which = turned(torch.zeros(judging.MOST // 2 + 1, 1, 1, 1, dtype=torch.uint8), 4)
    assert len(many) == judging.MOST // 2 + 1
    assert torch.bincount(which).min() >= len(many) // 4


def test_a_judge_is_trained_once_and_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path))
    said: list[str] = []
    one = own_judge(Cnn(seed=0), plain_data(Cnn(seed=0)), said.append)
    again = own_judge(Cnn(seed=7, batch=32), plain_data(Cnn(seed=7, batch=32)), said.append)
    assert len(said) == 1
    x = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one.see(x)[0], again.see(x)[0])
    assert one.about == again.about
    assert "not Inception" in one.about
    (kept,) = tmp_path.glob("judges/*.safetensors")
    kept.write_bytes(kept.read_bytes()[:-8])  # damaged: not used
    third = own_judge(Cnn(), plain_data(Cnn()), said.append)
    assert len(said) == 2
    assert torch.equal(one.see(x)[0], third.see(x)[0])


def test_the_accuracy_of_a_judge_is_of_pictures_that_it_never_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained on the rows of seed 0; those that another seed tests on are among them."""
    found = []
    for seed in (0, 7):
        monkeypatch.setenv("ENGRAM_CACHE", str(tmp_path / str(seed)))
        found.append(own_judge(Cnn(seed=seed), plain_data(Cnn(seed=seed))).accuracy)
    assert found[0] == found[1]


def test_pictures_without_classes_are_told_apart_by_their_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = plain_data(Cnn())
    object.__setattr__(data.spec, "classes", ())
    monkeypatch.setattr(judging, "plain_data", lambda recipe, **knobs: data)
    judge = own_judge(Cnn(), data)
    assert judge.classes == ()
    assert "8 turns and mirror images" in judge.about
    features, classes = judge.see(gather(data, "test", 50)[0])
    assert features.shape == (50, 128)
    assert classes is None


def test_a_run_is_the_judge(tmp_path: Path, vae: Run) -> None:
    knobs = {"epochs": 2, "widths": (4, 8), "precision": "fp32"}  # the judge's: two classes of a weak network are nearly even
    cnn = engram.train("cnn", **knobs, out=tmp_path / "cnn", progress=False, report=False)
    judge = run_judge(cnn)
    x = gather(plain_data(Cnn()), "test", 60)[0]
    features, classes = judge.see(x)
    assert features.shape == (60, cnn.model.head.in_features)  # type: ignore[union-attr, attr-defined]
    logits = cnn.model.head(features)  # type: ignore[operator]
    assert classes is not None
    assert torch.equal(logits.argmax(1), classes)
    assert [judge.classes[c] for c in classes] == cnn.predict(list(x.numpy()[:, 0]))["label"]  # type: ignore[index]
    assert judge_named(str(tmp_path / "cnn"), Cnn(), plain_data(Cnn())).about == judge.about
    with pytest.raises(RunError, match="does not classify pictures"):
        run_judge(vae)


def test_inception_weights_of_the_user_are_the_judge(tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = Inception().state_dict()
    save_file(weights, tmp_path / "inception.safetensors")
    judge = judge_named(str(tmp_path / "inception.safetensors"), Cnn(), plain_data(Cnn()))
    x = gather(plain_data(Cnn()), "test", 2)[0]
    features, classes = judge.see(x)
    torch.testing.assert_close(features, from_weights(weights)(x / 127.5 - 1).detach())
    assert classes is not None
    assert "Inception-v3 (plain)" in judge.about
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(RunError, match=r"other.safetensors: these are no weights of Inception-v3"):
        judge_named(str(tmp_path / "other.safetensors"), Cnn(), plain_data(Cnn()))


def test_real_pictures_beat_noise_and_one_class(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    judge = own_judge(Cnn(), plain_data(Cnn()))
    real, other, nines = judge.see(x[:700])[0], judge.see(x[700:])[0], judge.see(x[y == 9])[0]
    noise = judge.see(torch.randint(0, 256, (700, 1, 8, 8), dtype=torch.uint8))[0]
    good, random, one = figures(real, other), figures(real, noise), figures(real, nines)
    assert good["fid"] < 0.1 * min(random["fid"], one["fid"])
    assert good["precision"] > 0.7 > random["precision"]
    assert good["recall"] > 0.7 > one["recall"]


def test_fidelity_of_a_run(vae: Run) -> None:
    said: list[str] = []
    got = fidelity(vae, lambda data: own_judge(vae.recipe, data), n=100, train_on=150, say=said.append)
    assert json.loads((vae.path / "fidelity.json").read_text()) == got
    assert got["n"] == 100
    assert got["real"] == vae.info["data"]["rows"]["test"]
    assert got["samples"]["fid"] > got["training"]["fid"]
    assert {"fid", "kid", "kid_std", "precision", "recall", "density", "coverage"} == got["samples"].keys()
    assert len(got["modes"]["classes"]) == 10
    assert got["modes"]["even"] == pytest.approx(math.log(10))
    assert sum(row["samples"] for row in got["modes"]["classes"]) == pytest.approx(1)
    assert 0 <= got["asked"]["low"] <= got["asked"]["value"] <= got["asked"]["high"]
    trained = got["train_on_samples"]
    assert trained["labels"] == "the class that was asked"
    assert trained["training"]["rows"] == trained["samples"]["rows"] == 150
    assert trained["training"]["value"] > 0.5


def test_samples_of_every_class_come_in_their_shares_and_repeat(vae: Run) -> None:
    data = plain_data(vae.recipe)
    one, two = (draw(vae, vae.predictor, data, 103, 0, chunk, {}) for chunk in (64, 7))  # type: ignore[arg-type]
    torch.testing.assert_close(one.x, two.x, rtol=0, atol=1)
    assert torch.equal(one.asked, two.asked)
    assert torch.bincount(one.asked).tolist() == pytest.approx([10.3] * 10, abs=1)
    other = draw(vae, vae.predictor, data, 103, 1, 64, {})  # type: ignore[arg-type]
    assert not torch.equal(one.x, other.x)
    sevens = draw(vae, vae.predictor, data, 20, 0, 64, {"label": "7"})  # type: ignore[arg-type]
    assert sevens.asked.tolist() == [7] * 20


def test_a_run_that_was_told_no_classes_is_labelled_by_the_judge(tmp_path: Path) -> None:
    run = engram.train("vae", steps=20, hidden=(16,), latent=4, out=tmp_path / "vae", progress=False, report=False)
    got = fidelity(run, lambda data: own_judge(run.recipe, data), n=30, train_on=40)
    assert got["asked"] is None
    assert got["train_on_samples"]["labels"] == "the judge"


def test_a_classifier_learns_from_good_samples_and_not_from_wrong_labels(digits: tuple[Tensor, Tensor]) -> None:
    x, y = digits
    data, judge = plain_data(Cnn()), own_judge(Cnn(), plain_data(Cnn()))
    real = gather(data, "test", 1000)

    def got(labels: Tensor, guessed: Tensor | None) -> dict[str, Any]:
        return train_on_samples(data, Made(x, labels), guessed, judge, real, (x, y), 600)

    good = got(y, None)
    assert good["samples"] == good["training"]  # the same pictures and classes give the same network
    assert got((y + 1) % 10, None)["samples"]["value"] < 0.1
    guessed = got(torch.full((len(y),), -1), judge.see(x)[1])
    assert guessed["labels"] == "the judge"
    assert guessed["samples"]["value"] > 0.8 * good["samples"]["value"]
    with pytest.raises(DataError, match="neither the run nor its judge"):
        got(torch.full((len(y),), -1), None)


def test_the_command_prints_both_and_the_judge(vae: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(vae.path), "--fidelity", "--n", "40"]) == 0
    out = capsys.readouterr()
    assert "REAL TRAINING" in out.out
    assert "as asked" in out.out
    assert "our own CNN with 128 features" in out.err
    assert main(["eval", str(vae.path), "--fidelity", "--n", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "--n", "40"), "--n belongs to --fidelity or --composition"),
        (("eval", "--guidance", "2"), "--guidance belongs to --fidelity or --composition"),
        (("eval", "--judge", "runs/a"), "--judge belongs to --fidelity:"),
        (("eval", "--composition", "--train-on-samples", "40"), "--train-on-samples belongs to --fidelity: leave it out"),
        (("eval", "photos", "--fidelity"), "leave photos out"),
        (("inspect", "--layer", "2"), "--layer is for runs of text"),
        (("inspect", "--png", "a.png"), "--png is for runs of text"),
    ],
)
def test_what_would_mean_nothing_is_refused(
    vae: Run, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([words[0], str(vae.path), *words[1:]]) == 2
    assert said in capsys.readouterr().err


def test_what_cannot_be_measured_is_said(vae: Run, tmp_path: Path) -> None:
    def judge(data: Any) -> Judge:
        raise AssertionError("asked too early")

    with pytest.raises(ConfigError, match="n=3 and"):
        fidelity(vae, judge, n=3)
    with pytest.raises(ConfigError, match="guidance"):
        fidelity(vae, judge, guidance=3.0)
    cnn = engram.train("cnn", steps=1, widths=(4,), out=tmp_path / "cnn", progress=False, report=False)
    with pytest.raises(ConfigError, match="makes no new pictures"):
        fidelity(cnn, judge)
    lost = engram.load(vae.path)
    object.__setattr__(lost.recipe, "data", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"measured beside the data of .*vae, which cannot be read: .*gone"):
        fidelity(lost, judge)

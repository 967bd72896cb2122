"""Pictures from words: what may be asked, what is kept of a picture, and the figures."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from engram.core.errors import ConfigError, DataError
from engram.data.caption_spec import CaptionSpec
from engram.data.captions import captions
from engram.inference.image_gpt import ImageGPT
from engram.models.gpt import GPT
from engram.models.vqvae import VQVAE
from engram.nn.noise import RowNoise
from engram.recipes import find
from engram.tasks.image_tokens import ImageTokens

CODES = 8


@pytest.fixture(scope="module")
def data() -> Any:
    return captions("shapes", batch=8, rows=64, size=16)


@pytest.fixture(scope="module")
def predictor(data: Any) -> ImageGPT:
    torch.manual_seed(0)
    spec = data.spec
    assert isinstance(spec, CaptionSpec)
    codec = VQVAE(3, 16, 16, CODES, 4, (8, 8), 1).eval()
    codec.codebook.vectors.copy_(torch.randn(CODES, 4))
    model = GPT(len(spec.vocab) + 1 + CODES, spec.longest + 16, 1, 2, 8).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return ImageGPT(model, codec, spec)


def drawn(predictor: ImageGPT, n: int = 8, **wishes: Any) -> torch.Tensor:
    return torch.cat([torch.from_numpy(part.arrays) for part in predictor.sample(n, **wishes)])


def test_words_guidance_and_temperature_change_the_pictures(predictor: ImageGPT) -> None:
    first = drawn(predictor, prompt="a red circle")
    assert first.equal(drawn(predictor, prompt="A red circle."))
    others = [
        drawn(predictor, prompt="a blue square"), drawn(predictor), drawn(predictor, prompt="a red circle", guidance=3.0),
        drawn(predictor, prompt="a red circle", guidance=3.0, negative="a blue square"),
        drawn(predictor, prompt="a red circle", temperature=0.3), drawn(predictor, prompt="a red circle", top_k=2),
        drawn(predictor, prompt="a red circle", seed=1),
    ]  # fmt: skip
    pictures = [first, *others]
    assert [(i, j) for i, a in enumerate(pictures) for j, b in enumerate(pictures[:i]) if a.equal(b)] == []
    greedy = drawn(predictor, prompt="a red circle", temperature=0.0)
    assert all(greedy[0].equal(g) for g in greedy)


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"guidance": 21.0, "prompt": "a circle"}, "guidance=21 must be 0 to 20"),
        ({"guidance": -1.0, "prompt": "a circle"}, "guidance=-1 must be"),
        ({"guidance": 2.0}, "need a prompt"),
        ({"negative": "a circle", "prompt": "a ring"}, "negative counts only with guidance"),
        ({"temperature": 3.0}, "temperature=3 must be 0 to 2"),
        ({"top_k": 9}, "top_k=9 must be 1 to 8"),
        ({"strength": 0.5}, "give image too"),
        ({"strength": 1.5, "image": torch.zeros(3, 16, 16)}, r"strength=1\.5 must be 0"),
        ({"steps": 20}, "steps=20 means nothing to this run"),
        ({"label": "circle"}, "label='circle' means nothing"),
    ],
)
def test_what_is_out_of_range(predictor: ImageGPT, wishes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        predictor.sample(2, **wishes)


def test_without_drops_there_is_nothing_without_a_prompt(predictor: ImageGPT, data: Any) -> None:
    plain = ImageGPT(predictor.model, predictor.codec, predictor.spec, drops=False)
    for ask, says in (
        ({}, r"give prompt too, or train with without=0\.1"), ({"prompt": "?"}, "give prompt too"),
        ({"prompt": "a circle", "guidance": 2.0}, "give negative too with guidance=2, or"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            plain.ask(**ask)
    assert plain.ask(prompt="a circle", negative="a ring", guidance=2.0).guidance == 2
    scores = plain.scores(data.batches("test"), ())
    assert scores is not None
    assert "words" not in scores.figures
    kind = find("image_gpt")
    for without in (0.0, 0.1):
        made = kind(**{**kind.tiny, "without": without})
        told: Any = made.make_predictor(made.make_task(data.spec), data.spec)
        assert told.drops == (without > 0)


def test_unknown_words_are_named(predictor: ImageGPT) -> None:
    with pytest.raises(DataError, match=r"'a red elephant' has 'elephant', which the captions of this run never use"):
        predictor.sample(2, prompt="a red elephant")
    with pytest.raises(DataError, match="'frog'"):
        predictor.sample(2, prompt="a red circle", guidance=2.0, negative="a frog")


@torch.no_grad()
def test_upper_part_of_a_picture_is_kept(predictor: ImageGPT, data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x = next(data.batches("test"))["x"][0]
    ids = predictor.encode(x[None])
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(predictor, "_pictures", lambda ids: kept.append(ids) or predictor.parts.decode_ids(ids.view(-1, 4, 4)))
    free = predictor.draw(predictor.ask(), RowNoise(0, 0, 3), 3).x
    for strength, lines in ((None, 2), (0.25, 3), (0.0, 4), (1.0, 0)):
        again = predictor.draw(predictor.ask(image=x, strength=strength), RowNoise(0, 0, 3), 3).x
        assert (kept[-1].view(3, 4, 4)[:, :lines] == ids[:, :lines]).all()
        assert again.equal(free) == (lines == 0)


def test_film_ends_with_the_picture(predictor: ImageGPT) -> None:
    (sampled,) = predictor.sample(2, prompt="a red circle", keep_steps=True)
    assert len(sampled.steps) == 4
    assert (sampled.steps[-1] == sampled.arrays).all()


def test_nats_and_scores_are_those_of_the_task(predictor: ImageGPT, data: Any) -> None:
    spec: Any = predictor.spec
    task = ImageTokens(predictor.model, predictor.codec, len(spec.vocab), spec.longest).eval()
    batches = list(data.batches("test"))
    with torch.no_grad():
        wanted = torch.cat([task.nats(b["tokens"], task.ids(b["x"])).sum(1) for b in batches])
        plain = torch.cat([task.nats(torch.zeros_like(b["tokens"]), task.ids(b["x"])).sum(1) for b in batches])
    torch.testing.assert_close(torch.cat([predictor.outputs(b)["nats"] for b in batches]), wanted)
    scores = predictor.scores(batches, [])
    assert scores is not None
    told = {name: float(figure.statistic(scores.parts.sum(0)[None])) for name, figure in scores.figures.items()}
    assert told["nats"] == pytest.approx(float(wanted.mean()), rel=1e-5)
    assert told["nats_per_code"] == pytest.approx(told["nats"] / 16)
    assert told["words"] == pytest.approx(float((plain - wanted).mean()), rel=1e-4)
    x = torch.cat([b["x"] for b in batches])
    with torch.no_grad():
        error = ((predictor.reconstruct(x) - x) / 2).square().mean()
    assert told["psnr"] == pytest.approx(-10 * math.log10(float(error)), abs=1e-3)
    raw = data.raw("test", [0, 1])
    assert predictor(images=raw)["nats"] == pytest.approx(wanted[:2].tolist(), rel=1e-4)
    assert predictor(images=[r["image"] for r in raw])["nats"] == pytest.approx(plain[:2].tolist(), rel=1e-4)


def test_views(predictor: ImageGPT, data: Any) -> None:
    views = {view.name: view for view in predictor.views(lambda: data.batches("test"))}
    assert set(views) == {"prompts", "codebook", "words"}
    assert sum(views["codebook"].data["values"]) == pytest.approx(1)
    shown = views["words"].pictures
    assert shown is not None
    assert len(shown) == len(views["words"].data["captions"]) == 4 * views["words"].data["columns"]


def test_pictures_without_captions_are_looked_at_in_one_pass(predictor: ImageGPT, data: Any) -> None:
    passes = iter([[{"x": b["x"]} for b in data.batches("test")]])  # as from standard input: there is no second pass
    views = {view.name: view for view in predictor.views(lambda: next(passes))}
    assert set(views) == {"reconstructions", "codebook"}
    assert sum(views["codebook"].data["values"]) == pytest.approx(1)
    assert not list(predictor.views(lambda: iter(())))

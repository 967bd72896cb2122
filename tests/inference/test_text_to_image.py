"""Words to pictures: seeds, guidance, negative prompts, starting from pictures, masks, and what is seen inside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engram.core.errors import ConfigError, DataError
from engram.data.captions import captions
from engram.inference import text_to_image as module
from engram.inference.pictures import Ask
from engram.inference.samplers import sample
from engram.inference.text_to_image import TextToImage
from engram.inference.word_maps import Looks, word_views
from engram.models.latent_vae import LatentVAE
from engram.models.text_encoder import TextEncoder
from engram.models.text_unet import TextUNet
from engram.nn.noise import RowNoise
from engram.nn.schedule import Schedule
from engram.recipes import find

DATA = captions("shapes", batch=8, rows=96, size=16, scale="standard")
PROMPT = "a red circle at the top"


@pytest.fixture(scope="module")
def drawer() -> TextToImage:
    torch.manual_seed(0)
    spec: Any = DATA.spec
    vae, text = LatentVAE(3, (16, 16), 2, (4, 8)), TextEncoder(len(spec.vocab), spec.longest, 8, 1, 2)
    unet = TextUNet(2, vae.grid, 8, (8, 8), 2)
    torch.nn.init.normal_(unet.out.weight, std=0.3)
    vae.moments += torch.tensor([[100.0, 100.0], [50.0, -20.0], [80.0, 300.0]])
    return TextToImage(vae, text, unet, Schedule("cosine", "velocity"), spec, steps=5)


def drawn(drawer: TextToImage, n: int = 3, seed: int = 0, chunk: int = 64, **ask: Any) -> np.ndarray:
    return np.concatenate([c.arrays for c in drawer.sample(n, seed=seed, chunk=chunk, **ask)])


def codes(drawer: TextToImage, seed: int = 0, **ask: Any) -> Tensor:
    with torch.no_grad():
        return drawer.draw(drawer.ask(**ask), RowNoise(seed, 0, 3), 3).x


def test_seeds_repeat_in_chunks(drawer: TextToImage) -> None:
    whole = drawn(drawer, 3, prompt=PROMPT)
    parts = drawn(drawer, 3, chunk=2, prompt=PROMPT)
    assert abs(whole.astype(int) - parts).max() <= 1
    assert (whole != drawn(drawer, 3, seed=1, prompt=PROMPT)).any()
    assert (whole != drawn(drawer, 3, prompt="a blue star at the bottom")).any()


def test_equals_ddim_written_out(drawer: TextToImage) -> None:
    """Guidance and five steps of DDIM by hand, to 1e-5."""
    got = codes(drawer, prompt=PROMPT, negative="a star", guidance=2.5, sampler="ddim")
    with torch.no_grad():
        told, untold = (drawer._condition([p]).expand(3, -1, -1) for p in (PROMPT, "a star"))
        times = drawer.schedule.times(5).float()
        z = RowNoise(0, 0, 3).normal(*drawer.shape) * drawer.schedule.alpha_sigma(times[:1])[1]
        for here, there in pairwise(times):
            t = here.expand(3)
            a, s = drawer.unet(z, t, told), drawer.unet(z, t, untold)
            out = s + 2.5 * (a - s)
            x0, noise = drawer.schedule.x0(out, z, t), drawer.schedule.noise(out, z, t)
            alpha, sigma = drawer.schedule.alpha_sigma(there)
            z = alpha * x0 + sigma * noise
        want = drawer.codec.pictures(z)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "sampler", "spacing"),
    [("cosine", "dpm++", "time"), ("flow", "heun", "time"), ("edm", "heun", "rho"), ("edm", "dpm++", "log_snr")],
)
def test_times_of_edm_are_not_even(drawer: TextToImage, monkeypatch: Any, kind: str, sampler: str, spacing: str) -> None:
    schedule, taken = Schedule(kind, "velocity", spread=1.0), []

    def watched(schedule: Schedule, guess: Any, z: Tensor, times: Tensor, *how: Any, **more: Any) -> Any:
        taken.append(times)
        return sample(schedule, guess, z, times, *how, **more)

    monkeypatch.setattr(module, "sample", watched)
    other = TextToImage(drawer.vae, drawer.text, drawer.unet, schedule, drawer.spec, sampler, 6)
    assert codes(other, prompt=PROMPT).isfinite().all()
    assert torch.equal(taken[0], schedule.times(6, spacing))


def test_guidance_away_from_the_prompt_itself_changes_nothing(drawer: TextToImage) -> None:
    plain = codes(drawer, prompt=PROMPT, guidance=1)
    same = codes(drawer, prompt=PROMPT, negative=PROMPT, guidance=4)
    torch.testing.assert_close(plain, same, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, codes(drawer, prompt=PROMPT, guidance=4), atol=1e-3)
    torch.testing.assert_close(codes(drawer), codes(drawer, prompt="", guidance=1))


def test_a_picture_to_start_from(drawer: TextToImage) -> None:
    """The less may change, the nearer to what the autoencoder keeps of the picture."""
    x = next(DATA.batches("test"))["x"][0]
    kept = drawer.reconstruct(x[None])
    distance = [(codes(drawer, prompt=PROMPT, image=x, strength=s) - kept).square().mean().item() for s in (0.02, 0.4, 1.0)]
    assert distance[0] < 0.2 * distance[2]
    assert distance[0] < distance[1]


def test_a_mask_keeps_the_rest(drawer: TextToImage) -> None:
    x = next(DATA.batches("test"))["x"][0]
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[2:7, 9:15] = True
    out = codes(drawer, prompt=PROMPT, image=x, mask=mask)
    assert torch.equal(out[:, :, ~mask], x[:, ~mask].expand(3, -1, -1))
    assert not torch.allclose(out[0][:, mask], out[1][:, mask])


def test_steps_are_kept_when_asked(drawer: TextToImage) -> None:
    with torch.no_grad():
        film = drawer.draw(drawer.ask(prompt=PROMPT, keep_steps=True), RowNoise(0, 0, 2), 2)
    assert len(film.steps) == len(film.guesses) == 5
    assert film.steps[0].shape == (2, 3, 16, 16)
    assert torch.equal(film.steps[-1], drawer.to_uint8(film.x))


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        ({"prompt": PROMPT, "guidance": 40.0}, "guidance=40 must be 0 to 20"),
        ({"guidance": 3.0}, "guidance needs a prompt"),
        ({"prompt": PROMPT, "steps": 0}, "steps=0 must be 1"),
        ({"prompt": PROMPT, "sampler": "magic"}, "no sampler 'magic'"),
        ({"prompt": PROMPT, "strength": 0.5}, "give image too"),
        ({"prompt": PROMPT, "image": torch.zeros(3, 16, 16), "strength": 1.5}, "strength=1.5 must be"),
        ({"prompt": PROMPT, "negative": "a star", "guidance": 1.0}, "negative counts only with guidance"),
        ({"label": "star"}, "label='star' means nothing"),
    ],
)
def test_wishes_out_of_range(drawer: TextToImage, ask: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        drawer.sample(1, **ask)


def test_without_drops_there_is_nothing_without_a_prompt(drawer: TextToImage) -> None:
    plain = TextToImage(drawer.vae, drawer.text, drawer.unet, drawer.schedule, drawer.spec, steps=2, guidance=1.0, drops=False)
    refused: list[tuple[dict[str, Any], str]] = [
        ({}, "give prompt too, or train with drop=0"), ({"prompt": " !"}, "give prompt too"),
        ({"image": torch.zeros(3, 16, 16)}, "give prompt too"),
        ({"prompt": PROMPT, "guidance": 3.0}, "give negative too with guidance=3, or"),
    ]  # fmt: skip
    for ask, says in refused:
        with pytest.raises(ConfigError, match=says):
            plain.ask(**ask)
    assert plain.ask(prompt=PROMPT).guidance == 1
    assert plain.ask(prompt=PROMPT, negative="a star", guidance=3.0).guidance == 3
    scores = plain.scores(DATA.batches("test"), ())
    assert scores is not None
    assert set(scores.figures) == {"loss", "psnr"}
    assert {v.name for v in plain.views(lambda: DATA.batches("test"))} >= {"prompts", "denoising"}


def test_a_run_that_drops_nothing_is_guided_by_nothing() -> None:
    kind = find("latent_diffusion")
    for drop, guidance in ((0.0, 1.0), (0.1, 3.0)):
        made = kind(**{**kind.tiny, "drop": drop})
        predictor: Any = made.make_predictor(made.make_task(DATA.spec), DATA.spec)
        assert (predictor.guidance, predictor.drops) == (guidance, drop > 0)


def test_unknown_words_are_named(drawer: TextToImage) -> None:
    wishes: list[dict[str, Any]] = [{"prompt": "a red dragon"}, {"prompt": PROMPT, "negative": "dragon"}]
    for ask in wishes:
        with pytest.raises(DataError, match="'dragon', which the captions of this run never use"):
            drawer.sample(1, **ask)


def test_figures_and_looks_inside(drawer: TextToImage) -> None:
    scores = drawer.scores(DATA.batches("test"), ())
    assert scores is not None
    assert len(scores.parts) == DATA.size("test")
    values = {name: float(f.statistic(scores.parts.sum(0, keepdim=True))) for name, f in scores.figures.items()}
    x = torch.cat([b["x"] for b in DATA.batches("test")])
    std = torch.tensor(DATA.spec.std).view(1, -1, 1, 1)  # type: ignore[attr-defined]
    error = ((drawer.reconstruct(x) - x) * std).square().mean().item()
    assert values["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert np.mean(drawer(images=drawer.to_uint8(x))["error"]) == pytest.approx(error, rel=1e-3)
    views = {view.name: view for view in drawer.views(lambda: DATA.batches("test"))}
    assert list(views) == ["prompts", "words", "word-regions", "denoising", "reconstructions"]
    heat = views.pop("word-regions").data
    assert len(heat["values"]) == len(heat["rows"])
    assert all(len(row) == len(heat["columns"]) == 9 for row in heat["values"])
    for view in views.values():
        assert view.pictures is not None
        assert view.pictures.dtype == torch.uint8
        assert view.pictures.shape[1:] == (3, 16, 16)
        assert len(view.pictures) % view.data["columns"] == 0
        assert len(view.data["captions"]) in (0, len(view.pictures))
    assert not drawer.unet.looks()[0][0]._forward_hooks  # type: ignore[operator]


def test_words_of_a_place_share_its_attention(drawer: TextToImage) -> None:
    looked = Looks(drawer.unet, drawer.codec.grid)
    with torch.no_grad(), looked:
        drawer.draw(drawer.checked(Ask(prompt="a star")), RowNoise(0, 0, 2), 2)
    maps = looked.maps(2)
    assert maps.shape == (2, 1 + DATA.spec.longest, *drawer.codec.grid)  # type: ignore[attr-defined]
    torch.testing.assert_close(maps.sum(1), torch.ones(2, *drawer.codec.grid))
    assert maps[:, 3:].abs().max() == 0  # the mark and two words; the rest is padding


def test_maps_stand_beside_their_words() -> None:
    """A word that is looked at in the top left corner alone is white there, and its row of the table says so."""
    maps = torch.zeros(1, 3, 6, 6)
    maps[0, 1, :2, :2] = 0.25
    maps[0, 2, 4:, 4:] = 0.5
    words, regions = word_views(["red star"], torch.full((1, 3, 12, 12), 7, dtype=torch.uint8), maps)
    assert words.data == {"columns": 3, "captions": ["made", "red", "star"]}
    assert words.pictures is not None
    assert words.pictures[0].unique().tolist() == [7]
    assert words.pictures[1, :, :4, :4].unique().tolist() == [255]
    assert words.pictures[1].sum() == 255 * 3 * 16
    assert regions.data["rows"] == ["red", "star"]
    assert regions.data["values"][0] == pytest.approx([0.25] + [0.0] * 8)
    assert regions.data["values"][1] == pytest.approx([0.0] * 8 + [0.5])


def test_noise_alone_cannot_be_told_apart_at_the_start_of_flow() -> None:
    knobs: dict[str, Any] = {**find("latent_diffusion").tiny, "schedule": "flow", "prediction": "noise"}
    recipe = find("latent_diffusion")(**knobs)
    with pytest.raises(ConfigError, match="use velocity"):
        recipe.make_task(recipe.make_data().spec)

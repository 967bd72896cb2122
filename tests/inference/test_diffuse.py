"""A diffusion in use: wishes out of range, seeds and chunks, known pixels, films, errors and the bound."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engram.core.errors import ConfigError
from engram.data.image_spec import ImageSpec
from engram.inference.diffuse import Diffuser
from engram.inference.pictures import Ask, frames
from engram.inference.samplers import SAMPLERS
from engram.models.unet import UNet
from engram.nn.noise import RowNoise
from engram.nn.schedule import KINDS, Schedule
from engram.recipes import find
from engram.tasks.denoise import Denoise

SPEC = ImageSpec(channels=1, height=4, width=4, mean=(0.5,), std=(0.5,), classes=("cat", "dog"), class_counts=(30, 10))
SHAPE = (1, 4, 4)


class Best(nn.Module):
    """Each class is one grey: the exact x0 whatever the noise. No class: the mean of both."""

    def __init__(self) -> None:
        super().__init__()
        self.greys = nn.Parameter(torch.tensor([-0.6, 0.8, 0.1]))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        which = torch.full((len(x),), 2) if condition is None else condition
        return self.greys[which].view(-1, 1, 1, 1).expand_as(x)


def best(kind: str = "cosine") -> Diffuser:
    return Diffuser(Best(), Schedule(kind, "x0"), SPEC, SHAPE, SPEC.classes, limits=(-1.0, 1.0))


def random_net(guidance: float = 1.5) -> Diffuser:
    torch.manual_seed(0)
    net = UNet(1, (4, 4), 2, (8, 16)).eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.2)
    return Diffuser(net, Schedule("cosine"), SPEC, SHAPE, SPEC.classes, guidance=guidance, limits=(-1.0, 1.0), steps=4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_what_is_asked(kind: str, sampler: str) -> None:
    (chunk,) = best(kind).sample(3, label="dog", sampler=sampler, steps=6, guidance=1.0)
    assert chunk.arrays.shape == (3, 4, 4, 1)
    assert (chunk.arrays == round((0.8 * 0.5 + 0.5) * 255)).all()


def test_guidance_goes_beyond_the_condition() -> None:
    """0.1 + 1.2 (0.8 - 0.1) = 0.94."""
    drawn = best().draw(best().checked(Ask(label="dog", guidance=1.2, steps=5)), RowNoise(0, 0, 1), 1)
    torch.testing.assert_close(drawn.x, torch.full((1, *SHAPE), 0.94), atol=1e-4, rtol=0)


def test_without_drops_the_error_is_that_of_the_class_that_fits() -> None:
    """The grey without a class, 0.1, was never trained then: a picture of it is as odd as it is far from both classes."""
    grey = torch.tensor([-0.6, 0.8, 0.1])
    x = grey.view(-1, 1, 1, 1).expand(3, *SHAPE)
    told = Diffuser(Best(), Schedule("cosine", "x0"), SPEC, SHAPE, SPEC.classes, drops=False)
    torch.testing.assert_close(told.outputs({"x": x})["error"], torch.tensor([0.0, 0.0, 0.49]))
    torch.testing.assert_close(best().outputs({"x": x})["error"], (grey - 0.1).square())
    whole = told.outputs({"x": x})["error"]
    assert torch.equal(told.outputs({"x": x[1:]})["error"], whole[1:])


def test_without_drops_there_is_no_guidance_and_no_picture_without_class() -> None:
    net = Diffuser(Best(), Schedule("cosine", "x0"), SPEC, SHAPE, SPEC.classes, limits=(-1.0, 1.0), drops=False)
    for guidance in (0.0, 1.5):
        with pytest.raises(ConfigError, match=rf"told its class: guidance={guidance} must be 1, or train with drop=0\.1"):
            net.ask(label="dog", guidance=guidance)
    with pytest.raises(ConfigError, match="always told its class: name that of the image too"):
        net.ask(image=torch.zeros(SHAPE))
    drawn = net.draw(net.ask(image=torch.zeros(SHAPE), label="dog", guidance=1.0), RowNoise(0, 0, 1), 1)
    torch.testing.assert_close(drawn.x, torch.full((1, *SHAPE), 0.8), atol=1e-4, rtol=0)
    assert net.ask().guidance == 1
    free = Diffuser(UNet(1, (4, 4), 0, (8,)), Schedule(), SPEC, SHAPE, drops=False)  # it knows no classes
    assert free.ask(image=torch.zeros(SHAPE)).guidance == 1


@pytest.mark.parametrize("recipe", ["ddpm", "dit"])
def test_a_run_that_drops_nothing_is_guided_by_nothing(recipe: str) -> None:
    kind = find(recipe)
    for drop, guidance in ((0.0, 1.0), (0.1, 1.5)):
        made = kind(**{**kind.tiny, "data": "digits", "drop": drop})
        spec = made.make_data().spec
        predictor: Any = made.make_predictor(made.make_task(spec), spec)
        assert (predictor.guidance, predictor.drops) == (guidance, drop > 0)


def test_classes_come_as_often_as_in_training() -> None:
    (chunk,) = best().sample(400, chunk=400, steps=1, guidance=1.0)
    assert 0.68 < (chunk.arrays[:, 0, 0, 0] < 128).mean() < 0.82


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seeds_and_chunks(sampler: str) -> None:
    """Five pictures in chunks of two are five at once; another seed gives others."""
    net = random_net()
    (whole,) = net.sample(5, seed=3, sampler=sampler)
    chunks = list(net.sample(5, seed=3, chunk=2, sampler=sampler))
    together = torch.cat([torch.from_numpy(c.arrays) for c in chunks]).int()
    assert (together - torch.from_numpy(whole.arrays).int()).abs().max() <= 1  # a rounding of the last bit
    (other,) = net.sample(5, seed=4, sampler=sampler)
    assert (torch.from_numpy(other.arrays).int() - together).abs().max() > 20


def test_known_pixels_stay() -> None:
    image, mask = torch.rand(1, 4, 4) * 2 - 1, torch.zeros(4, 4, dtype=torch.bool)
    mask[:2] = True
    net = random_net()
    drawn = net.draw(net.checked(Ask(image=image, mask=mask)), RowNoise(0, 0, 3), 3)
    torch.testing.assert_close(drawn.x[:, :, 2:], image[None, :, 2:].expand(3, -1, -1, -1))
    assert drawn.x[:, :, :2].std() > 0.01


def test_given_pictures_say_what_they_are() -> None:
    """With an image and no class the network is told none; with a class, that one."""
    image = torch.zeros(SHAPE)
    drawn = [best().draw(best().checked(Ask(image=image, label=label)), RowNoise(0, 0, 3), 3).x for label in (None, "cat")]
    torch.testing.assert_close(drawn[0], torch.full((3, *SHAPE), 0.1), atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn[1], torch.full((3, *SHAPE), -0.6), atol=1e-4, rtol=0)


def test_strength_says_how_much_changes() -> None:
    """Little strength takes few of the steps."""
    net, image = random_net(), torch.zeros(SHAPE)
    films = [
        net.draw(net.checked(Ask(image=image, strength=s, steps=20, keep_steps=True)), RowNoise(0, 0, 1), 1) for s in (0.1, 1)
    ]
    assert [len(f.steps) for f in films] == [2, 20]
    moved = [(f.x - image).square().mean().item() for f in films]
    assert moved[0] < moved[1]


def test_film_ends_in_the_picture() -> None:
    net = random_net()
    drawn = net.draw(net.checked(Ask(keep_steps=True)), RowNoise(0, 0, 2), 2)
    assert len(drawn.steps) == len(drawn.guesses) == 4
    assert torch.equal(drawn.steps[-1], net.to_uint8(drawn.x))
    assert not torch.equal(drawn.guesses[0], drawn.guesses[-1])
    assert not net.draw(net.checked(Ask()), RowNoise(0, 0, 2), 2).steps


def test_a_film_is_small() -> None:
    """At most a hundred steps, as bytes, of the first chunk; the last step among them, and all where they are few."""
    net = best()
    (long, rest) = net.sample(5, chunk=3, steps=250, label="dog", keep_steps=True)
    assert len(long.steps) == len(long.guesses) == 100
    assert {f.dtype for f in (*long.steps, *long.guesses)} == {long.arrays.dtype}
    assert (long.steps[-1] == long.arrays).all()
    assert not rest.steps
    assert not rest.guesses
    assert frames(1) == [0]
    assert frames(100) == [*range(100)]
    assert frames(2000)[::99] == [0, 1999]
    assert all(len(set(frames(n))) == min(n, 100) for n in range(1, 400))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"steps": 0}, "steps=0 must be 1 to"),
        ({"steps": 10**6}, "must be 1 to"),
        ({"guidance": -1.0}, "guidance=-1.0 must be 0 to 50"),
        ({"sampler": "dmp++"}, "did you mean"),
        ({"label": "dgo"}, "no class 'dgo'"),
        ({"strength": 0.5}, "strength needs the picture"),
        ({"mask": torch.ones(4, 4).bool()}, "mask needs the picture"),
        ({"image": torch.zeros(SHAPE), "mask": torch.zeros(4, 4).bool()}, "black all over"),
        ({"image": torch.zeros(SHAPE), "strength": 1.5}, "strength=1.5"),
        ({"image": torch.zeros(SHAPE), "guidance": 2.0}, "give the class too"),
        ({"prompt": "a cat"}, "means nothing to this run"),
    ],
)
def test_wishes_out_of_range(wishes: dict[str, Any], message: str) -> None:
    """One line, before anything is drawn."""
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")) as caught:
        random_net().sample(2, **wishes)
    assert "\n" not in str(caught.value)


def test_without_classes() -> None:
    net = Diffuser(UNet(1, (4, 4), 0, (8,)), Schedule(), SPEC, SHAPE)
    assert next(net.sample(2, steps=2)).arrays.shape == (2, 4, 4, 1)
    with pytest.raises(ConfigError, match="means nothing"):
        net.sample(2, label="cat")


def test_bf16_is_near() -> None:
    """A copy in bfloat16, channels-last; what it draws and measures stays near, and the network is untouched."""
    net, x = random_net(1.0), torch.rand(3, *SHAPE) * 2 - 1
    before = (net.outputs({"x": x})["error"], net.draw(net.checked(Ask(steps=2)), RowNoise(0, 0, 2), 2).x)
    net.tune(bf16=True, channels_last=True)
    after = (net.outputs({"x": x})["error"], net.draw(net.checked(Ask(steps=2)), RowNoise(0, 0, 2), 2).x)
    torch.testing.assert_close(after[0], before[0], rtol=0.05, atol=0.05)
    assert (after[1] - before[1]).abs().mean() < 0.05
    assert next(net.given.parameters()).dtype == torch.float32


def test_scores_and_views() -> None:
    net = random_net()
    batch = {"x": torch.rand(12, *SHAPE) * 2 - 1, "y": torch.arange(12) % 2}
    scores = net.scores([batch, batch], [])
    assert scores is not None
    assert scores.parts.shape == (24, 2)
    bits, nats = (f.statistic(scores.parts.sum(0, keepdim=True)) for f in scores.figures.values())
    torch.testing.assert_close(bits * 16 * torch.tensor(2.0).log(), nats, rtol=1e-4, atol=1e-4, check_dtype=False)
    split = net.scores([{n: v[i : i + 4] for n, v in batch.items()} for i in (0, 4, 8)] * 2, [])
    assert split is not None
    torch.testing.assert_close(split.parts, scores.parts, rtol=1e-4, atol=1e-3)
    assert net.scores([], []) is None
    views = list(net.views(lambda: [batch]))
    assert [v.name for v in views] == ["denoising-film", "by-class", "error-by-noise"]
    film, grid = views[0].pictures, views[1].pictures
    assert film is not None
    assert grid is not None
    assert film.shape == (4 * 2 * 4, 1, 4, 4)
    assert grid.shape == (8, 1, 4, 4)
    last = torch.from_numpy(next(net.sample(1)).arrays)[0, :, :, 0]
    assert (film[3, 0].int() - last.int()).abs().max() <= 1  # the first row ends in the first picture of seed 0


@pytest.mark.parametrize("name", ["ddpm", "dit"])
def test_bits_are_a_bound_where_channels_differ(name: str) -> None:
    """The levels of the channel with the largest deviation lie closest together as the network reads them."""
    spec = ImageSpec(channels=3, height=8, width=8, mean=(0.5,) * 3, std=(0.1, 0.4, 0.2), classes=())
    recipe = find(name)(**find(name).tiny)
    task = recipe.make_task(spec)
    assert isinstance(task, Denoise)
    assert task.step == pytest.approx(1 / 255 / 0.4)
    predictor = recipe.make_predictor(task, spec)
    assert isinstance(predictor, Diffuser)
    assert predictor.step == task.step

"""Both stages of text to image by tokens."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engram.core.batch import Batch
from engram.core.task import Ctx
from engram.models.gpt import GPT
from engram.models.vqvae import VQVAE
from engram.tasks.image_tokens import ImageTokens

WORDS, LONGEST, CODES = 6, 3, 8


@pytest.fixture
def task() -> ImageTokens:
    torch.manual_seed(0)
    codec = VQVAE(1, 8, 8, CODES, 4, (8,), 1)
    codec.codebook.vectors.copy_(torch.randn(CODES, 4))
    model = GPT(WORDS + 1 + CODES, LONGEST + 16, 1, 2, 8)
    return ImageTokens(model, codec, WORDS, LONGEST, share=0.4, without=0.5, warm=0.5)


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(1)
    return {
        "x": torch.randn(5, 1, 8, 8),
        "tokens": torch.tensor([[1, 2, 3], [4, 0, 0], [5, 5, 0], [1, 0, 0], [2, 3, 0]]),
        "drop": torch.tensor([0.1, 0.9, 0.6, 0.4, 0.5]),
        "keys": torch.rand(5),
    }


def test_nats_are_cross_entropy_over_the_codes_alone(task: ImageTokens, batch: Batch) -> None:
    task.eval()
    ids = task.ids(batch["x"])
    assert ids.shape == (5, 16)
    tokens = torch.cat([batch["tokens"], torch.full((5, 1), WORDS), ids + WORDS + 1], 1)
    logits = task.model(tokens[:, :-1])[:, LONGEST:, WORDS + 1 :]
    wanted = F.cross_entropy(logits.flatten(0, 1), ids.flatten())
    loss, _ = task.loss(batch, Ctx())
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-6)
    weights = list(task.model.parameters())
    for a, b in zip(torch.autograd.grad(loss, weights), torch.autograd.grad(wanted, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert loss.item() == pytest.approx(task.chance_loss(), rel=0.05)


def test_captions_are_left_out_in_training_only(task: ImageTokens, batch: Batch) -> None:
    task.train()
    dropped = batch | {"tokens": batch["tokens"] * torch.tensor([0, 1, 1, 0, 1])[:, None]}
    kept = {name: t for name, t in dropped.items() if name != "drop"}
    assert task.loss(batch, Ctx())[0] == task.loss(kept, Ctx())[0]
    plain = {name: t for name, t in batch.items() if name != "drop"}
    assert task.loss(batch, Ctx())[0] != task.loss(plain, Ctx())[0]
    task.eval()
    assert task.loss(batch, Ctx())[0] == task.loss(plain, Ctx())[0]
    none = {"x": batch["x"]}
    assert task.loss(none, Ctx())[0] == task.loss(batch | {"tokens": torch.zeros(5, 3, dtype=torch.int64)}, Ctx())[0]


def test_codec_loss_by_hand(task: ImageTokens, batch: Batch) -> None:
    codec = task.codec
    assert isinstance(codec, VQVAE)
    z = codec.encode(batch["x"])
    distance = (z.movedim(1, -1)[..., None, :] - codec.codebook.vectors).square().sum(-1)
    q = codec.codebook.vectors[distance.argmin(-1)].movedim(-1, 1)
    task.eval()
    loss, logs = task.codec_loss(batch, Ctx(0, 100))
    error, commitment = F.mse_loss(codec.decode(q), batch["x"]), F.mse_loss(z, q)
    torch.testing.assert_close(loss, error + 0.25 * commitment)
    torch.testing.assert_close(logs["error"], error)
    task.train()
    warm, _ = task.codec_loss(batch, Ctx(19, 100))  # 0.5 of 0.4 of the steps
    torch.testing.assert_close(warm, F.mse_loss(codec.decode(z), batch["x"]) + 0.05 * commitment)
    torch.testing.assert_close(task.codec_loss(batch, Ctx(20, 100))[0], loss)


def test_codebook_moves_in_its_stage_only(task: ImageTokens, batch: Batch) -> None:
    codec = task.codec
    assert isinstance(codec, VQVAE)
    task.train()
    before = codec.codebook.vectors.clone()
    task.codec_loss(batch, Ctx(3, 100))
    task.after_step(Ctx(3, 100))
    moved = codec.codebook.vectors.clone()
    assert not moved.equal(before)
    task.loss(batch, Ctx(50, 100))
    task.after_step(Ctx(50, 100))
    assert codec.codebook.vectors.equal(moved)
    stages = {phase.name: phase.stage(100) for phase in task.phases()}
    assert stages == {"model": (40, 100), "codec": (0, 40)}


def test_evaluate_and_show(task: ImageTokens, batch: Batch) -> None:
    task.eval()
    with torch.no_grad():
        found = task.evaluate([batch, {name: t[:2] for name, t in batch.items()}], Ctx())
        text = torch.cat([batch["tokens"], batch["tokens"][:2]])
        wanted = task.nats(text, task.ids(torch.cat([batch["x"], batch["x"][:2]]))).mean()
    assert found["loss"] == pytest.approx(float(wanted), rel=1e-5)
    assert 1 <= found["codes"] <= CODES
    first, again = task.show(Ctx()), task.show(Ctx())
    assert first is not None
    assert again is not None
    assert first.shape == (16, 1, 8, 8)
    assert first.equal(again)

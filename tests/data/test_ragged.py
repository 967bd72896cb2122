"""Rows of unequal length: nothing lost, little padded, the order a pure function of its arguments."""

from __future__ import annotations

import numpy as np
import torch

from engram.core.data import Summary
from engram.data.language_spec import LanguageSpec
from engram.data.ragged import RaggedData
from engram.data.vocabulary import Vocabulary

SPEC = LanguageSpec(vocab=Vocabulary("byte").to_json(), context=8)


def make(rows: int = 500, batch: int = 16, **more) -> RaggedData:
    random = np.random.default_rng(0)
    held = [{"tokens": [n + 1] * int(random.integers(1, 60)), "y": n % 7, "tags": [n] * 3} for n in range(rows)]
    return RaggedData(SPEC, Summary("", {}), {"train": held, "val": held[:50]}, batch=batch, lengths={"tokens": "lengths"},
                      pads={"tags": -100}, seed=2, **more)  # fmt: skip


def first_epoch(d: RaggedData, **more):
    stream = d.batches("train", **more)
    return [next(stream) for _ in range(d.steps_per_epoch)]


def test_an_epoch_holds_every_row_once() -> None:
    d = make()
    seen = [t for b in first_epoch(d) for t in b["tokens"][:, 0].tolist()]
    assert sorted(seen) == list(range(1, 501))
    for b in first_epoch(d):
        inside = torch.arange(b["tokens"].shape[1]) < b["lengths"][:, None]
        assert torch.equal(b["tokens"] != 0, inside)
        assert torch.equal(b["y"], (b["tokens"][:, 0] - 1) % 7)


def test_rows_of_like_length_go_together() -> None:
    padded = [1 - float((b["tokens"] != 0).float().mean()) for b in first_epoch(make())]
    assert sum(padded) / len(padded) < 0.08  # at random it is about a half
    widths = [b["tokens"].shape[1] for b in first_epoch(make())]
    assert widths != sorted(widths)


def test_batch_k_is_a_pure_function_of_its_arguments() -> None:
    d, steps = make(), make().steps_per_epoch
    stream = d.batches("train")
    long = [next(stream) for _ in range(2 * steps + 3)]
    for k in (0, 5, steps, 2 * steps + 2):
        one = next(make().batches("train", start=k))
        assert torch.equal(one["tokens"], long[k]["tokens"])
    assert not torch.equal(long[0]["y"][:5], long[steps]["y"][:5]) or long[0]["tokens"].shape != long[steps]["tokens"].shape


def test_ranks_share_a_batch_and_other_splits_keep_their_order() -> None:
    whole = next(make().batches("train", start=3))
    parts = [next(make().batches("train", start=3, part=(r, 2))) for r in range(2)]
    assert torch.equal(torch.cat([p["y"] for p in parts]), whole["y"])
    assert [t for b in make().batches("val") for t in b["tokens"][:, 0].tolist()] == list(range(1, 51))


def test_what_finish_does_depends_on_the_batch_number_alone() -> None:
    def noise(batch, random):
        return batch | {"noise": torch.rand(len(batch["y"]), generator=random)} if random else batch

    first, again = (next(make(finish=noise).batches("train", start=4)) for _ in range(2))
    assert torch.equal(first["noise"], again["noise"])
    assert "noise" not in next(make(finish=noise).batches("val"))
    parts = [next(make(finish=noise).batches("train", start=4, part=(rank, 3))) for rank in range(3)]
    for name, whole in first.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), whole), name

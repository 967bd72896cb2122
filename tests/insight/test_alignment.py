"""Alignments against the attention written out, and that looking changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from engram.insight.alignment import Alignment, alignment
from engram.models.gpt import GPT
from engram.models.seq2seq import Seq2Seq
from engram.models.t5 import T5
from engram.models.transformer import Transformer

SOURCE, TARGET = [6, 9, 7, 8, 3], [2, 11, 6, 12, 3]
PIECES = [f"s{i}" for i in SOURCE], [f"t{i}" for i in TARGET[1:]]


def fresh(net: Any) -> Any:
    torch.manual_seed(2)
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)
    return net.eval().requires_grad_(False)


def test_weights_of_a_transformer_give_what_its_layer_gives() -> None:
    """Weights times values, through the output map, is what the fused attention gave; and the logits stay as they were."""
    net = fresh(Transformer(14, 14, 2, 2, 8, 8))
    source, target = torch.tensor([SOURCE]), torch.tensor([TARGET[:-1]])
    gave: dict[int, torch.Tensor] = {}
    before, memory = net(source, None, target), net.encode(source)
    for layer, block in enumerate(net.decoder):
        block.cross.register_forward_hook(lambda m, a, out, layer=layer: gave.__setitem__(layer, out))
    found = alignment(net, SOURCE, TARGET, PIECES)
    assert found.weights.shape == (2, 2, 4, 5)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(2, 2, 4))
    for layer, block in enumerate(net.decoder):
        _, values = block.cross.keys_values(memory)
        heads = (found.weights[layer] @ values[0]).transpose(0, 1).flatten(1)
        torch.testing.assert_close(block.cross.out(heads), gave[layer][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(net(source, None, target), before)


@pytest.mark.parametrize("knobs", [{}, {"feed": True}, {"attention": "additive", "cell": "gru"}])
def test_weights_of_a_recurrent_network_make_its_contexts(knobs: dict[str, object]) -> None:
    net = fresh(Seq2Seq(14, 14, 6, **knobs))  # type: ignore[arg-type]
    found = alignment(net, SOURCE, TARGET, PIECES)
    assert found.weights.shape == (1, 1, 4, 5)
    assert found.contexts.shape == (4, 12)
    memory = net.start(torch.tensor([SOURCE])).memory[0]
    torch.testing.assert_close(found.weights[0, 0] @ memory, found.contexts, atol=1e-5, rtol=1e-5)


def test_t5_shows_its_cross_attention_alone() -> None:
    found = alignment(fresh(T5(14, 3, 2, 8, 4, 8)), SOURCE, TARGET, PIECES)
    assert found.weights.shape == (3, 2, 4, 5)
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(3, 2, 4))


def test_a_decoder_has_no_source() -> None:
    with pytest.raises(ValueError, match="does not attend to a source"):
        alignment(fresh(GPT(14, 8, 1, 2, 8)), SOURCE, TARGET, PIECES)


def test_json_and_the_means() -> None:
    weights = torch.rand(2, 3, 4, 5)
    found = Alignment(tuple(PIECES[0]), tuple(PIECES[1]), weights, torch.rand(4, 2))
    said = found.to_json(contexts=True)
    assert said["source"] == PIECES[0]
    assert said["target"] == PIECES[1]
    torch.testing.assert_close(torch.tensor(said["weights"]), weights.mean((0, 1)), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.tensor(said["layers"][1][2]), weights[1, 2], atol=1e-6, rtol=0)
    assert len(said["contexts"]) == 4
    assert "contexts" not in found.to_json()
    torch.testing.assert_close(found.mean(1), weights[1].mean(0))
    torch.testing.assert_close(found.mean(1, 2), weights[1, 2])
    torch.testing.assert_close(found.mean(None, 2), weights[:, 2].mean(0))

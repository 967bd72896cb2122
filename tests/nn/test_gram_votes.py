"""Votes of hashed n-grams: their sum by hand, their gradients, padding, and that the networks add them to their logits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engram.models.recurrent import RecurrentEncoder
from engram.models.textcnn import TextCNN
from engram.nn.gram_votes import GAIN, GramVotes

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "textcnn": lambda grams: TextCNN(20, 3, 6, (2, 3), 7, grams=grams),
    "gru": lambda grams: RecurrentEncoder(20, 6, cell="gru", classes=3, grams=grams),
}
GRAMS = torch.tensor([[1, 3, 8, 15, 10], [7, 9, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_votes_by_hand() -> None:
    """Word n-grams count 1 / sqrt(their number), letters likewise; 0 is none."""
    torch.manual_seed(0)
    votes = GramVotes(16, 3).double()
    assert not votes(GRAMS).any()  # weights start at 0
    table = votes.weight
    nn.init.normal_(table)
    added = [(table[1] + table[3]) / 2**0.5 + (table[8] + table[15] + table[10]) / 3**0.5, table[7] + table[9], 0 * table[0]]
    wanted, got = GAIN * torch.stack(added), votes(GRAMS)
    torch.testing.assert_close(got, wanted, atol=1e-12, rtol=1e-12)
    for a, b in zip(*(torch.autograd.grad(x.square().sum(), table) for x in (got, wanted)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(votes(F.pad(GRAMS, (0, 4))), got, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_add_the_votes(name: str) -> None:
    torch.manual_seed(0)
    net, plain = (NETWORKS[name](n).double().eval() for n in (16, 0))
    plain.load_state_dict({key: t for key, t in net.state_dict().items() if key != "grams.weight"})
    votes = net.get_submodule("grams")
    nn.init.normal_(votes.get_parameter("weight"))
    tokens, lengths = torch.randint(20, (3, 9)), torch.tensor([9, 4, 2])
    torch.testing.assert_close(net(tokens, lengths, GRAMS), plain(tokens, lengths) + votes(GRAMS), atol=1e-12, rtol=1e-12)
    with pytest.raises(ValueError, match="give grams"):
        net(tokens, lengths)

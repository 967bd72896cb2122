"""TextCNN against windows by hand on each text alone; padding and short texts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engram.models.textcnn import TextCNN


def alone(net: TextCNN, text: Tensor) -> Tensor:
    """One text (T,) window by window; zeros are added only where it is shorter than the window."""
    x = net.embed(text).T[None]  # (1, embed, T)
    found = []
    for width, conv in zip(net.widths, net.convs, strict=True):
        x0 = F.pad(x, (0, max(width - x.shape[2], 0)))[0]  # (embed, T or width)
        windows = torch.stack([x0[:, t : t + width] for t in range(x0.shape[1] - width + 1)])
        y = torch.einsum("tew,cew->tc", windows, conv.weight) + conv.bias
        found.append(y.relu().amax(0, keepdim=True))
    return net.head(torch.cat(found, 1))


def test_equals_windows_by_hand() -> None:
    """Logits to 1e-10 and gradients to 1e-9, with texts shorter than the windows; padding changes nothing."""
    torch.manual_seed(0)
    net = TextCNN(20, 3, 6, (2, 3, 5), 7).double().eval()
    tokens, lengths = torch.randint(20, (5, 9)), torch.tensor([9, 1, 4, 2, 6])
    logits = net(tokens, lengths)
    wanted = torch.cat([alone(net, text[:n]) for text, n in zip(tokens, lengths.tolist(), strict=True)])
    torch.testing.assert_close(logits, wanted, atol=1e-10, rtol=1e-10)
    got = torch.autograd.grad(logits.square().sum(), list(net.parameters()))
    for a, b in zip(got, torch.autograd.grad(wanted.square().sum(), list(net.parameters())), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_dropout_only_in_training() -> None:
    net, tokens, lengths = TextCNN(20, 3), torch.ones(2, 6, dtype=torch.int64), torch.tensor([6, 3])
    assert not torch.equal(net(tokens, lengths), net(tokens, lengths))
    net.eval()
    assert torch.equal(net(tokens, lengths), net(tokens, lengths))


def test_learns_an_order_of_two_words() -> None:
    """The class is whether 1 stands before 2, anywhere."""
    torch.manual_seed(0)
    net = TextCNN(12, 2, 16, (2, 3), 16, 0.1)
    tokens = torch.randint(3, 12, (128, 10))
    y, place = torch.randint(2, (128,)), torch.randint(0, 8, (128,))
    rows = torch.arange(128)
    tokens[rows, place], tokens[rows, place + 1] = 1 + y, 2 - y
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    lengths = torch.full((128,), 10)
    for _ in range(40):
        optimizer.zero_grad()
        F.cross_entropy(net(tokens[:96], lengths[:96]), y[:96]).backward()
        optimizer.step()
    net.eval()
    assert (net(tokens[96:], lengths[96:]).argmax(1) == y[96:]).float().mean() > 0.9


def test_errors() -> None:
    with pytest.raises(ValueError, match="widths are the words of each window"):
        TextCNN(5, 2, widths=(0,))

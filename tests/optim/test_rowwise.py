"""Row-wise Adagrad against the formula written in plain loops, and in its buffer."""

from __future__ import annotations

import torch
from torch import nn

from engram.optim.rowwise import RowKnobs, build_rows


class Tables(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.bias, self.b = nn.Embedding(5, 4), nn.Embedding(5, 1), nn.Embedding(3, 4)


def test_steps_equal_the_formula() -> None:
    net, lr = Tables(), 0.3
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    optim = build_rows(net, RowKnobs(lr=lr))
    assert len(optim.flat) == 2  # rows of four numbers, and of one
    draw = torch.Generator().manual_seed(1)
    grads = [{n: torch.randn(p.shape, generator=draw) for n, p in start.items()} for _ in range(3)]
    for step in grads:
        for name, p in net.named_parameters():
            step[name][1] = 0  # word 1 never has a gradient
            assert p.grad is not None
            p.grad.copy_(step[name])
        optim.optimizer.step()
    for name, p in net.named_parameters():
        for row in range(len(p)):
            value, total = start[name][row].clone(), 0.0
            for step in grads:
                total += float(step[name][row].square().mean())
                if total:
                    value -= lr * step[name][row] / total**0.5
            torch.testing.assert_close(p[row].detach(), value, rtol=1e-5, atol=1e-6)
    assert torch.equal(net.a.weight[1], start["a.weight"][1])


def test_the_rate_does_not_depend_on_the_scale_of_the_loss() -> None:
    ends = []
    for scale in (1.0, 1e-6):
        net = Tables()
        optim = build_rows(net, RowKnobs())
        for p in net.parameters():
            assert p.grad is not None
            p.grad.copy_(torch.arange(p.numel()).view(p.shape) * scale)
        optim.optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


def test_state_is_saved_and_comes_back() -> None:
    net = Tables()
    first, second = build_rows(net, RowKnobs()), build_rows(Tables(), RowKnobs())
    for p in net.parameters():
        p.grad.normal_()  # type: ignore[union-attr]
    first.optimizer.step()
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    states = [[s["sum"] for s in o.optimizer.state.values()] for o in (first, second)]
    assert all(torch.equal(a, b) and a.sum() > 0 for a, b in zip(*states, strict=True))


def test_plain_gradient_descent() -> None:
    net = Tables()
    before = net.a.weight.detach().clone()
    optim = build_rows(net, RowKnobs(name="sgd", lr=0.5))
    net.a.weight.grad.fill_(1)  # type: ignore[union-attr]
    optim.optimizer.step()
    torch.testing.assert_close(net.a.weight.detach(), before - 0.5)

"""MLP against scikit-learn's MLPClassifier and a functional reference, in float64, gradients included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neural_network import MLPClassifier

from engram.models.mlp import MLP
from engram.nn import Columns

NAMES = {"relu": "relu", "tanh": "tanh", "sigmoid": "logistic", "linear": "identity"}  # ours: scikit-learn's


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("hidden", [(8, 5), (6,)])
@pytest.mark.parametrize("activation", NAMES)
def test_equals_scikit_learn(activation: str, hidden: tuple[int, ...]) -> None:
    """Probabilities, and the gradients of its own backpropagation, to 1e-10."""
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(20, 7)), np.arange(20) % 3
    theirs = MLPClassifier(hidden, activation=NAMES[activation], alpha=0, max_iter=1, random_state=0).fit(x, labels)  # type: ignore[arg-type]
    ours = MLP(7, 3, hidden, activation).double()
    linears = [layer for layer in ours.modules() if isinstance(layer, torch.nn.Linear)]
    for layer, weight, bias in zip(linears, theirs.coefs_, theirs.intercepts_, strict=True):
        layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)

    inputs = torch.tensor(x, requires_grad=True)
    logits = ours(inputs)
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), np.asarray(theirs.predict_proba(x)), atol=1e-10)
    F.cross_entropy(logits, torch.tensor(labels)).backward()

    widths = [7, *hidden, 3]
    values = [x, *(np.empty((20, n)) for n in widths[1:])]
    deltas = [np.empty_like(v) for v in values[1:]]
    weight_grads, bias_grads = [np.empty_like(w) for w in theirs.coefs_], [np.empty_like(b) for b in theirs.intercepts_]
    theirs._backprop(x, np.eye(3)[labels], None, values, deltas, weight_grads, bias_grads)  # type: ignore[attr-defined]
    for layer, weight, bias in zip(linears, weight_grads, bias_grads, strict=True):
        assert layer.weight.grad is not None
        assert layer.bias.grad is not None
        np.testing.assert_allclose(layer.weight.grad.numpy(), weight.T, atol=1e-10)
        np.testing.assert_allclose(layer.bias.grad.numpy(), bias, atol=1e-10)
    assert inputs.grad is not None
    np.testing.assert_allclose(inputs.grad.numpy(), deltas[0] @ theirs.coefs_[0].T / 20, atol=1e-10)


def test_norm_skip_and_order_of_a_layer() -> None:
    """Three layers of which the second and third are as wide as their input, against F.* calls, to 1e-12."""
    torch.manual_seed(0)
    net = MLP(6, 2, (8, 8, 8), "gelu", norm="batch", skip=True).double()
    for p in net.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(10, 6, dtype=torch.float64)
    weights = {name: p.detach().clone().requires_grad_() for name, p in net.named_parameters()}
    h = x
    for i in range(3):
        z = F.linear(h, weights[f"hidden.{i}.linear.weight"])
        z = F.batch_norm(z, None, None, weights[f"hidden.{i}.norm.weight"], weights[f"hidden.{i}.norm.bias"], True)
        h = F.gelu(z) + h if i else F.gelu(z)
    expected = F.linear(h, weights["head.weight"], weights["head.bias"])
    y = net(x)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-12)
    wanted = torch.autograd.grad(expected.square().sum(), list(weights.values()))
    for (name, _), got, want in zip(
        net.named_parameters(), torch.autograd.grad(y.square().sum(), list(net.parameters())), wanted, strict=True
    ):
        torch.testing.assert_close(got, want, atol=1e-9, rtol=1e-9, msg=name)


def test_skip_needs_equal_widths_and_never_bypasses_the_first_layer() -> None:
    torch.manual_seed(0)
    a, b = MLP(4, 2, (4, 5), skip=True), MLP(4, 2, (4, 5))
    b.load_state_dict(a.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(a(x), b(x))


def test_perceptron_moves_by_its_learning_rule() -> None:
    net = MLP(3, 1, (), output="step").double()
    net.head.weight.data = torch.tensor([[0.1, -0.2, 0.1]], dtype=torch.float64)
    x = torch.tensor([[1.0, 1, 1], [1, 2, 0], [3, 0, 1], [2, 2, 1]], dtype=torch.float64)
    target = torch.tensor([[1.0], [0], [0], [1]], dtype=torch.float64)
    y = net(x)
    assert y.flatten().tolist() == [0, 0, 1, 0]
    (0.5 * (y - target).square().sum()).backward()
    torch.testing.assert_close(net.head.weight.grad, (y - target).detach().T @ x)
    assert len(list(net.parameters())) == 2


def test_no_hidden_layer_is_logistic_regression() -> None:
    torch.manual_seed(0)
    logits, probabilities = MLP(4, 1, (), "sigmoid"), MLP(4, 1, (), output="sigmoid")
    probabilities.load_state_dict(logits.state_dict())
    x = torch.randn(5, 4)
    torch.testing.assert_close(logits(x).sigmoid(), probabilities(x))
    torch.testing.assert_close(logits(x), x @ logits.head.weight.T + logits.head.bias)


def test_table_columns_come_first() -> None:
    torch.manual_seed(0)
    columns = Columns([[-1.0, 0, 1], [0.0, 1]], [4, 9], embed=3)
    net = MLP(columns.out_features, 2, (5,), columns=columns)
    numeric, categorical = torch.randn(6, 2), torch.randint(0, 4, (6, 2))
    y = net(numeric, categorical)
    torch.testing.assert_close(y, net.head(net.hidden[0](columns(numeric, categorical))))
    y.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    assert net.cost() == 2 * 3 * 3 + columns.out_features * 5 + 5 * 2
    with pytest.raises(ValueError, match=r"columns give \d+ features, not the 3"):
        MLP(3, 2, columns=columns)
    with pytest.raises(ValueError, match="numeric, categorical"):
        net(numeric)


def test_images_are_flattened_and_cost_counted() -> None:
    net = MLP(12, 3, (5, 4))
    assert net(torch.randn(2, 1, 4, 3)).shape == (2, 3)
    assert net.cost() == 12 * 5 + 5 * 4 + 4 * 3


def test_dropout_only_in_training_and_start_from_the_seed() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(MLP(4, 2, dropout=0.5))
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    x = torch.randn(50, 4)
    assert not torch.equal(nets[0](x), nets[0](x))
    nets[0].eval()
    assert torch.equal(nets[0](x), nets[0](x))


@pytest.mark.parametrize("init", ["zeros", "orthogonal", "lecun_normal", "he_uniform"])
def test_init_reaches_every_layer(init: str) -> None:
    torch.manual_seed(0)
    net = MLP(4, 2, (3, 3), init=init)
    zero = [not layer.weight.any() for layer in net.modules() if isinstance(layer, torch.nn.Linear)]
    assert zero == [init == "zeros"] * 3


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "group"])
def test_autocast_and_compile(norm: str) -> None:
    torch.manual_seed(0)
    net = MLP(6, 3, (16, 16), "silu", norm=norm, skip=True)
    x = torch.randn(8, 6)
    y = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        low = net(x)
        low.float().square().mean().backward()
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), y, atol=0.1, rtol=0.1)
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in net.parameters())
    net.compile(backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(net(x), y)

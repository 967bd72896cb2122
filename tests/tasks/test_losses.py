"""Losses against formulas, torch and scikit-learn; what they say about wrong shapes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error

from engram.core.errors import ConfigError, DataError
from engram.tasks import losses

torch.set_num_threads(1)
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0], dtype=torch.float64)


def rows(n: int = 12, classes: int = 4):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, classes, generator=g).double(), torch.randint(classes, (n,), generator=g)


def test_cross_entropy_is_sklearns_log_loss():
    logits, y = rows()
    assert losses.cross_entropy(logits, y).item() == pytest.approx(log_loss(y, logits.softmax(1), labels=range(4)), abs=1e-12)


def test_class_weights_are_sklearns_row_weights_and_torchs():
    logits, y = rows()
    found = losses.cross_entropy(logits, y, WEIGHTS)
    assert found.item() == pytest.approx(log_loss(y, logits.softmax(1), sample_weight=WEIGHTS[y], labels=range(4)), abs=1e-12)
    torch.testing.assert_close(found, F.cross_entropy(logits, y, WEIGHTS))


def test_label_smoothing_is_torchs_and_the_formulas():
    logits, y = rows()
    torch.testing.assert_close(losses.cross_entropy(logits, y, None, 0.2), F.cross_entropy(logits, y, label_smoothing=0.2))
    smooth = F.one_hot(y, 4) * 0.8 + 0.2 / 4
    each = -(smooth * logits.log_softmax(1)).sum(1)
    expected = (each * WEIGHTS[y]).sum() / WEIGHTS[y].sum()
    torch.testing.assert_close(losses.cross_entropy(logits, y, WEIGHTS, 0.2), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_token_cross_entropy_leaves_out_what_is_ignored(smoothing):
    """Value and gradient; logits of -inf are allowed without smoothing; where no row counts both are 0."""
    logits, y = rows()
    y[::3] = 1
    logits.requires_grad_()
    found = losses.token_cross_entropy(logits, y, 1, smoothing)
    torch.testing.assert_close(found, F.cross_entropy(logits[y != 1], y[y != 1], label_smoothing=smoothing))
    assert not torch.autograd.grad(found, logits)[0][y == 1].any()
    none = losses.token_cross_entropy(logits, y * 0, 0, smoothing)
    assert none.item() == 0
    assert not torch.autograd.grad(none, logits)[0].any()


def test_token_cross_entropy_of_impossible_classes():
    logits, y = rows()
    logits[:, 3] = -torch.inf
    logits.requires_grad_()
    loss = losses.token_cross_entropy(logits, y.clamp(max=2), 3)
    torch.testing.assert_close(loss, F.cross_entropy(logits, y.clamp(max=2)))
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_token_cross_entropy_in_half_precision_is_summed_in_float32(smoothing):
    logits, y = rows(600, 50)
    rough = logits.bfloat16()
    assert torch.equal(*(losses.token_cross_entropy(x, y, 0, smoothing) for x in (rough, rough.float())))


def test_rows_without_weight_give_zero_not_nan():
    logits, _ = rows()
    logits.requires_grad_()
    y = torch.zeros(12, dtype=torch.long)
    loss = losses.cross_entropy(logits, y, torch.tensor([0.0, 1.0, 1.0, 1.0]).double(), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_binary_cross_entropy_is_torchs_for_any_kind_of_target():
    logits, _ = rows()
    y = (torch.arange(48).reshape(12, 4) % 3 == 0).long()
    weights = torch.tensor([1.0, 3.0, 0.5, 2.0], dtype=torch.float64)
    p = logits.sigmoid()
    expected = -(weights * y * p.log() + (1 - y) * (1 - p).log()).mean()
    for target in (y, y.bool(), y.double()):
        torch.testing.assert_close(losses.binary_cross_entropy(logits, target, weights), expected)


def test_regression_losses():
    prediction, target = rows()[0], rows()[0].flip(0) * 2
    assert losses.mse(prediction, target).item() == pytest.approx(mean_squared_error(target, prediction), abs=1e-12)
    assert losses.mae(prediction, target).item() == pytest.approx(mean_absolute_error(target, prediction), abs=1e-12)
    wrong = (prediction - target).abs()
    expected = torch.where(wrong < 1, wrong.square() / 2, wrong - 0.5).mean()
    assert (wrong < 1).any()
    assert (wrong > 1).any()
    torch.testing.assert_close(losses.huber(prediction, target), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_outputs_are_lost_in_float32(dtype):
    logits, y = rows()
    low = logits.to(dtype)
    assert losses.cross_entropy(low, y).dtype == torch.float32
    torch.testing.assert_close(losses.cross_entropy(low, y), F.cross_entropy(low.float(), y))
    target = low.float() + 0.01
    for loss in losses.REGRESSION.values():
        assert loss(low, target).dtype == torch.float32
    assert losses.binary_cross_entropy(low, (low > 0)).dtype == torch.float32


@pytest.mark.parametrize("loss", [*losses.REGRESSION.values(), losses.binary_cross_entropy])
@pytest.mark.parametrize(
    ("prediction", "target", "said"),
    [
        ((32, 1), (32,), "they would broadcast to (32, 32); give the target shape (32, 1), e.g. y[:, None]"),
        ((32,), (32, 1), "they would broadcast to (32, 32); give the target shape (32,), e.g. y[:, 0]"),
        ((32, 3), (32, 1), "they would broadcast to (32, 3); give the target shape (32, 3), or the network 1 outputs"),
        ((32, 3), (32, 2), "they do not fit; give the target shape (32, 3), or the network 2 outputs"),
        ((8, 4, 1), (8, 4), "they do not fit; give the target shape (8, 4, 1), e.g. y[:, :, None]"),
        ((8, 4), (4,), "they would broadcast to (8, 4); give the target shape (8, 4), or the network an output of shape (4,)"),
    ],
)
def test_shapes_are_never_broadcast(loss, prediction, target, said):
    with pytest.raises(DataError) as caught:
        loss(torch.zeros(prediction), torch.zeros(target))
    assert said in str(caught.value)
    assert f"prediction has shape {prediction} and target {target}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("logits", "target", "said"),
    [
        ((6, 3), (6, 1), "give the target shape (6,), e.g. y[:, 0]"),
        ((6, 3), (6, 3), "give the target shape (6,), e.g. y.argmax(1)"),
        ((6, 3), (5,), "give the target shape (6,)"),
        ((6,), (6,), "let the last layer give one number per class"),
        ((6, 3, 2), (6,), "let the last layer give one number per class"),
    ],
)
def test_cross_entropy_says_how_to_mend_shapes(logits, target, said):
    with pytest.raises(DataError) as caught:
        losses.cross_entropy(torch.zeros(logits), torch.zeros(target, dtype=torch.long))
    assert said in str(caught.value)


def test_cross_entropy_takes_any_whole_numbers_and_refuses_others():
    logits, y = rows()
    assert losses.cross_entropy(logits, y.int()) == losses.cross_entropy(logits, y)
    with pytest.raises(DataError, match=r"y\.long\(\)"):
        losses.cross_entropy(logits, y.float())


def test_class_weights_must_fit_the_classes():
    logits, y = rows()
    with pytest.raises(ConfigError, match="3 class weights for 4 classes"):
        losses.cross_entropy(logits, y, WEIGHTS[:3])


@pytest.mark.parametrize("values", [(1.0, -1.0), (1.0, float("nan")), (float("inf"), 1.0), (0.0, 0.0)])
def test_weights_must_be_weights(values):
    with pytest.raises(ConfigError, match="class_weights"):
        losses.weight_tensor(values, "class_weights")

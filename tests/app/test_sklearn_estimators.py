"""Classifier and Regressor: scikit-learn's own checks, its tools, tables of mixed columns, and promises about randomness."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine, make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import engram
from engram.core.data import Summary
from engram.core.errors import ConfigError, DataError
from engram.core.plan import Plan, Stepped
from engram.data.columns import Column
from engram.data.memory import MemoryData
from engram.data.split import split_rows
from engram.data.table_fit import fit_spec
from engram.models.mlp import MLP
from engram.nn.columns import Columns
from engram.optim.build import build
from engram.optim.knobs import OptimKnobs
from engram.sklearn import Classifier, Regressor
from engram.tasks.regress import Regress

SMALL = {"hidden": (16,), "epochs": 20, "lr": 0.01}


@parametrize_with_checks([Classifier(**SMALL), Regressor(**SMALL)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def blobs(rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    return make_classification(rows, 5, n_informative=3, random_state=0)


def mixed(rows: int = 80) -> tuple[pd.DataFrame, np.ndarray]:
    """The class is decided by text, and the number is missing now and then."""
    rng = np.random.default_rng(0)
    colour = rng.choice(["red", "green", "blue"], rows)
    frame = pd.DataFrame({
        "colour": colour,
        "size": pd.Categorical(rng.choice([38, 40, 42], rows)),
        "sold": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, rows), unit="D"),
        "new": rng.random(rows) < 0.5,
        "price": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
    })  # fmt: skip
    return frame, np.where(colour == "red", "warm", "cold")


def test_a_few_words_in_a_column_of_numbers_are_missing_cells():
    rng = np.random.default_rng(0)
    cells = [str(x) for x in rng.normal(size=100).round(3)]
    cells[3], cells[50] = "broken", "oops"
    frame = pd.DataFrame({"x": cells, "z": rng.normal(size=100)})
    with pytest.warns(UserWarning, match=r"2 of 100 cells are no numbers \('broken', 'oops'\) and are taken as missing"):
        fitted = Classifier(epochs=1, random_state=0).fit(frame, np.arange(100) % 2)
    frame.loc[[3, 50], "x"] = None
    assert np.array_equal(fitted.predict_proba(frame[3:4]), fitted.predict_proba(frame[3:4].assign(x="broken")))


def test_pipeline_search_and_cross_validation():
    X, y = blobs()
    pipe = make_pipeline(StandardScaler(), Classifier(epochs=10, random_state=0))
    search = GridSearchCV(
        pipe, {"classifier__hidden": [(4,), (8, 8)], "classifier__lr": [1e-6, 0.01]}, cv=2, error_score="raise"
    )
    assert search.fit(X, y).best_params_["classifier__lr"] == 0.01
    assert search.best_score_ > 0.75
    assert cross_val_score(Regressor(epochs=20, random_state=0), X, X[:, 0], cv=2, error_score="raise").mean() > 0.5


def test_defaults_are_good_on_small_data():
    assert cross_val_score(Classifier(random_state=0), *load_wine(return_X_y=True), cv=3).mean() > 0.95
    assert cross_val_score(Regressor(random_state=0), *load_diabetes(return_X_y=True), cv=3).mean() > 0.45


def test_frames_of_mixed_columns():
    X, y = mixed()
    fitted = Classifier(**SMALL, random_state=0).fit(X, y)
    assert fitted.score(X, y) == 1.0
    assert fitted.classes_.tolist() == ["cold", "warm"]
    assert fitted.feature_names_in_.tolist() == list(X.columns)
    kinds = {"colour": "category", "size": "category", "sold": "date", "new": "boolean", "price": "number"}
    assert fitted.spec_.columns == kinds
    bad = X.set_axis(range(100, 180), axis=0).assign(price=["3", "x"] * 40)
    with pytest.raises(DataError, match="row 2: column 'price' is 'x', not a number"):
        fitted.predict(bad)
    odd = X.head(2).assign(colour=["violet", None], size=[99, None], price=np.nan)
    assert np.isfinite(fitted.predict_proba(odd)).all()
    with pytest.raises(ValueError, match="in the same order"):
        fitted.predict(X[X.columns[::-1]])


def test_missing_numbers_are_told_apart():
    X = np.where(np.arange(60)[:, None] % 3 == 0, np.nan, 1.0) * np.ones((60, 2))
    y = np.isnan(X[:, 0]).astype(int)
    assert Classifier(**SMALL, random_state=0).fit(X, y).score(X, y) == 1.0


def test_columns_that_say_nothing_are_named():
    X, y = mixed()
    with pytest.warns(UserWarning, match="column 'name' is text that differs in every row and is left out"):
        fitted = Classifier(**SMALL).fit(X.assign(name=[f"n{i}" for i in range(len(X))]), y)
    assert "name" not in fitted.spec_.columns
    assert fitted.n_features_in_ == 6
    with pytest.raises(DataError, match="no usable column: column 'a' is empty"):
        Classifier().fit(pd.DataFrame({"a": [np.nan, np.nan]}), [0, 1])


@pytest.mark.parametrize("wrap", [np.asarray, pd.DataFrame])
def test_infinite_cells_are_refused(wrap):
    X, y = blobs(20)
    fitted = Classifier(**SMALL).fit(wrap(X), y)
    X[3, 2] = np.inf
    for call in (lambda: fitted.predict(wrap(X)), lambda: Classifier(**SMALL).fit(wrap(X), y)):
        with pytest.raises(ValueError, match="infinity"):
            call()


def test_infinite_cells_written_as_text_are_refused():
    X, y = blobs(20)
    frame = pd.DataFrame(X, columns=list("abcde")).assign(words=[f"{v:.3f}" for v in X[:, 0]])
    fitted = Classifier(**SMALL).fit(frame, y)
    assert fitted.spec_.columns["words"] == "number"
    frame.loc[3, "words"] = "-inf"
    with pytest.raises(ValueError, match=r"column 'words', contains infinity"):
        Classifier(**SMALL).fit(frame, y)
    with pytest.raises(DataError, match=r"row 4: column 'words' is -inf"):
        fitted.predict(frame)


def test_frames_that_cannot_be_used():
    with pytest.raises(DataError, match="more than one column called 'a'"):
        Classifier().fit(pd.DataFrame(np.ones((2, 2)), columns=["a", "a"]), [0, 1])
    with pytest.raises(ValueError, match=r"0 feature\(s\)"):
        Classifier().fit(pd.DataFrame(index=[0, 1]), [0, 1])
    X, y = blobs(20)
    fitted = Classifier(**SMALL).fit(pd.DataFrame(X), y)
    with pytest.raises(ValueError, match=r"0 sample\(s\)"):
        fitted.predict(pd.DataFrame(X[:0]))


def test_arrays_and_frames_stand_for_each_other():
    X, y = blobs(40)
    frame = pd.DataFrame(X, columns=list("abcde"), index=range(100, 140))
    from_frame = Regressor(**SMALL, random_state=0).fit(frame, y)
    from_array = Regressor(**SMALL, random_state=0).fit(X, y)
    expected = from_array.predict(X)
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert (from_frame.predict(X) == expected).all()
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        assert (from_array.predict(frame) == expected).all()


@pytest.mark.parametrize("estimator", [Classifier(**SMALL), Regressor(**SMALL)], ids=["classifier", "regressor"])
def test_the_callers_randomness_and_threads_stay(estimator):
    X, y = blobs(40)
    torch.manual_seed(5)
    np.random.seed(5)
    random, numpy_random, threads = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for state in (0, None):
            clone(estimator).set_params(random_state=state, threads=1).fit(X, y).predict(X)
            assert torch.equal(torch.get_rng_state(), random)
            assert (np.random.get_state()[1] == numpy_random).all()
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_random_state_decides_the_network():
    X, y = blobs()

    def weights(state, stir: int) -> torch.Tensor:
        torch.manual_seed(stir)
        fitted = Classifier((4,), epochs=2, random_state=state).fit(X, y)
        return torch.cat([p.detach().flatten() for p in fitted.model_.parameters()])

    assert torch.equal(weights(3, 1), weights(3, 2))
    assert torch.equal(weights(np.random.RandomState(3), 1), weights(np.random.RandomState(3), 2))
    assert not torch.equal(weights(3, 1), weights(4, 1))
    assert not torch.equal(weights(None, 1), weights(None, 1))


def test_it_is_the_librarys_loop():
    """Written out with the library's own parts, the training gives the same weights to the bit."""
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:100], y[:100]
    fitted = Regressor((8,), epochs=3, batch=40, random_state=7).fit(X, y)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(10)])
    columns = [Column(name, "number", 0, 9) for name in frame]
    spec = fit_spec(frame, columns, target="y", problem="regression", target_mean=float(y.mean()), target_std=float(y.std()))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        table = Columns([[]] * 10, [])
        task = Regress(MLP(10, 1, (8,), dropout=0.2, columns=table), ("numeric", "categorical"))
        data = MemoryData(spec, Summary("", {}), {"train": spec.encode(frame) | {"y": spec.encode_target(y)}}, batch=40, seed=7)
        optims = {"model": build(task, OptimKnobs(name="adamw", lr=5e-3))}
        told = list(engram.fit(task, data, optims, Plan(steps=9, seed=7)))
    by_hand = task.model.state_dict()
    assert all(torch.equal(t, by_hand[name]) for name, t in fitted.model_.state_dict().items())
    losses = [float(e.logs["model/loss"]) for e in told if isinstance(e, Stepped)]
    assert fitted.loss_curve_ == pytest.approx([np.mean(losses[i : i + 3]) for i in (0, 3, 6)])
    assert fitted.n_iter_ == 3


def test_the_module_is_the_model():
    X, y = blobs()
    fitted = Classifier(**SMALL, random_state=0).fit(X, y)
    batch = fitted.spec_.encode(X)
    with torch.no_grad():
        shares = fitted.model_(batch["numeric"], batch["categorical"]).softmax(1)
    np.testing.assert_allclose(fitted.predict_proba(X), shares, atol=1e-5)
    assert not fitted.model_.training
    assert all(p.grad is None and p._base is None for p in fitted.model_.parameters())
    with torch.no_grad():
        for p in fitted.model_.parameters():
            p.zero_()
    assert (fitted.predict_proba(X) == 0.5).all()


def test_early_stopping_keeps_the_best_epoch():
    X, y = blobs(200)
    y = np.where(np.random.default_rng(0).random(200) < 0.3, 1 - y, y)  # noise to overfit
    fitted = Classifier((64,), epochs=60, lr=0.03, dropout=0.0, validation_fraction=0.25, patience=5, random_state=1).fit(X, y)
    losses = [m["loss"] for m in fitted.validation_curve_]
    assert fitted.n_iter_ == len(losses) == len(fitted.loss_curve_) < 60
    assert int(np.argmin(losses)) == len(losses) - 6
    held = split_rows(200, y, (0.75, 0.25, 0.0), 1)["val"]
    assert len(held) == 50
    right = fitted.predict_proba(X[held])[np.arange(50), y[held]]
    assert -np.log(right).mean() == pytest.approx(min(losses), rel=1e-4)


def test_rows_are_held_back_only_where_there_are_many():
    X = np.random.default_rng(0).normal(size=(5000, 1))
    assert Regressor((), epochs=1).fit(X[:4999], X[:4999, 0]).validation_curve_ == []
    held = Regressor((), epochs=1).fit(X, X[:, 0])
    assert len(held.validation_curve_) == 1
    assert held.predict(X).shape == (5000,)  # in pieces


def test_class_weights():
    X, y = make_classification(200, 4, weights=[0.9], flip_y=0.1, class_sep=0.4, random_state=0)
    names = np.array(["no", "yes"])[y]

    def found(weight) -> float:
        fitted = Classifier((8,), epochs=20, class_weight=weight, random_state=0).fit(X, names)
        return (fitted.predict(X[y == 1]) == "yes").mean()

    assert found(None) < 0.6 < found("balanced")
    assert found({"no": 0.001, "yes": 1}) == 1.0
    with pytest.raises(ValueError, match="class_weight"):
        found("even")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": -1}, "epochs=-1"),
        ({"dropout": 2}, "dropout=2"),
        ({"optimizer": "adams"}, "did you mean adam"),
        ({"activation": "rely"}, "relu"),
        ({"norm": "bach"}, "batch"),
        ({"batch": "all"}, "batch=all"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"device": "moon"}, "device=moon"),
    ],
)
def test_parameters_out_of_range_are_refused_at_fit(given, said):
    X, y = blobs(20)
    with pytest.raises(ConfigError, match=said):
        Classifier(**given).fit(X, y)


def test_losses_and_sizes_reach_the_network():
    X, y = blobs(60)
    outliers = np.where(np.arange(60) % 10 == 0, 100.0, X[:, 0])
    fits = {
        loss: Regressor((), epochs=80, lr=0.03, dropout=0.0, loss=loss, random_state=0).fit(X, outliers)
        for loss in ("mse", "mae")
    }
    wrong = {loss: np.median(np.abs(fit.predict(X) - X[:, 0])) for loss, fit in fits.items()}
    assert wrong["mae"] < wrong["mse"] / 2
    sure, unsure = (Classifier(**SMALL, label_smoothing=s, random_state=0).fit(X, y) for s in (0.0, 0.8))
    assert unsure.predict_proba(X).max() < 0.8 < sure.predict_proba(X).max()
    deep = Classifier((7, 5), norm="layer", bins=True, epochs=1).fit(X, y).model_
    assert [layer.linear.out_features for layer in deep.hidden] == [7, 5]
    assert deep.columns.out_features > 5 > 0
    assert Classifier((7,), epochs=1).fit(X, y).model_.columns.out_features == 5
    assert Classifier(6, epochs=1).fit(X, y).model_.hidden[0].linear.out_features == 6


def test_verbose_talks_on_standard_error(capsys):
    X, y = blobs(20)
    Classifier((4,), epochs=2, validation_fraction=0.2, verbose=1).fit(X, y)
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("epoch ") == said.err.count("accuracy") == 2

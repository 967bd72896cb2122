"""Networks as scikit-learn estimators: `Classifier` and `Regressor` work in Pipeline, GridSearchCV and cross_val_score.

    from engram.sklearn import Classifier
    Classifier(hidden=(64,)).fit(X, y).predict(X)

They train by the same loop, tasks and optimizers as everything else, in memory and without a run folder.
"""

from __future__ import annotations

from engram.sklearn.classifier import Classifier
from engram.sklearn.regressor import Regressor

__all__ = ["Classifier", "Regressor"]

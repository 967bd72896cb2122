"""What scikit-learn calls X as the columns of a TableSpec: checked, named, and typed by what pandas says they are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from sklearn.utils import assert_all_finite
from sklearn.utils.validation import validate_data

from engram.core.errors import DataError
from engram.data.columns import Cells, Column, find_columns, numbers


def to_frame(estimator: Any, X: Any, reset: bool) -> pd.DataFrame:
    """X, an array-like of numbers (rows, columns) or a DataFrame, as a DataFrame with text for column names.

    With `reset` the estimator learns `n_features_in_` and `feature_names_in_`; otherwise X is checked against them. Missing
    cells are allowed, infinite ones are not. Raises ValueError or TypeError as scikit-learn does, DataError on two columns of
    one name.
    """
    if not isinstance(X, pd.DataFrame):
        array: Any = validate_data(estimator, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan")
        return pd.DataFrame(array, columns=pd.Index([f"x{i}" for i in range(array.shape[1])]))
    names = pd.Index([str(name) for name in X.columns])
    if not names.is_unique:
        raise DataError(f"X has more than one column called {names[names.duplicated()][0]!r}; rename one")
    given: Any = X  # scikit-learn's own annotation says text
    validate_data(estimator, given, reset=reset, skip_check_array=True)
    rows, columns = X.shape
    if not rows or not columns:
        what = f"{columns} feature(s)" if rows else "0 sample(s)"
        raise ValueError(f"Found array with {what} (shape={X.shape}) while a minimum of 1 is required.")
    frame = X.set_axis(names, axis=1).reset_index(drop=True)
    for name in frame.columns:
        if is_number(frame[name]):
            assert_all_finite(frame[name].to_numpy(np.float64, na_value=np.nan), allow_nan=True, input_name="X")
    return frame


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """The usable columns. Numbers stay numbers and categories categories, whatever they hold; text is looked at, and columns
    of text that say nothing are left out with a warning. Raises DataError when no column is left, ValueError when text says an
    infinite number."""
    found: list[Column] = []
    why: list[str] = []
    for name in frame.columns:
        cells: Cells = frame[name]
        if is_number(cells) or isinstance(cells.dtype, pd.CategoricalDtype):
            kind = "number" if is_number(cells) else "category"
            if (missing := int(cells.isna().sum())) < len(cells):
                found.append(Column(name, kind, missing, int(cells.nunique())))
            else:
                why.append(f"column {name!r} is empty and is left out")
        else:
            usable, notes = find_columns(cells.to_frame())
            if any(column.kind == "number" for column in usable):  # numbers written as text
                assert_all_finite(numbers(cells)[0], allow_nan=True, input_name=f"X, column {name!r},")
            found += usable
            why += [note.text for note in notes if note.level == "warning" or not usable]
    if not found:
        raise DataError(f"X has no usable column: {'; '.join(why)}")
    for text in why:
        warnings.warn(text, stacklevel=4)
    return found


def is_number(cells: Cells) -> bool:
    """Whether a column holds real numbers (booleans are categories)."""
    kind = cells.dtype
    return types.is_numeric_dtype(kind) and not types.is_bool_dtype(kind) and not types.is_complex_dtype(kind)

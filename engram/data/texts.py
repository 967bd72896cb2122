"""Texts for language models, classifiers, taggers, translators and chat: built-in sets, the user's files, rows in Python.

Raw text in, plain rows out; nothing is tokenised here and nothing imports torch's tensors.
"""

from __future__ import annotations

from typing import Any

from engram.core.errors import DataError
from engram.data.text_rows import FORMS, Form, Row, Texts, as_form, check_form
from engram.data.text_sets import is_set, read_set
from engram.data.text_split import finish

__all__ = ["FORMS", "Form", "Row", "Texts", "read_texts"]


def read_texts(data: Any, form: str = "", *, seed: int = 0, val: float = 0.1, test: float = 0.1) -> Texts:
    """Texts."""
    check_form(form)
    if is_set(str(data)):
        return finish(as_form(read_set(str(data)), form, str(data)), str(data), seed, val, test)
    raise DataError(f"no built-in set of texts is called {str(data)!r}")

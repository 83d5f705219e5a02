"""Any corpus as a frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from pandas_amr.errors import UsageError

TEXT_COLUMN = "text"


def from_documents(documents: Iterable[Any] | Mapping[Any, Any]) -> pd.DataFrame:
    """Make a frame of documents: one row each.

    Args:
        documents: a list of texts or of records (dicts), or a dict of them by label.

    Returns:
        A frame with a column ``text``, or with the records' fields; labelled by the dict's keys where there are any.

    Raises:
        UsageError: texts and records are mixed, or there is neither.

    Example:
        >>> from_documents({"a.txt": "first", "b.txt": "second"})
                 text
        a.txt   first
        b.txt  second
    """
    if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
        raise UsageError(f"from_documents takes a list or a dict of documents, not {type(documents).__name__}.")
    labelled = isinstance(documents, Mapping)
    items = list(documents.values()) if isinstance(documents, Mapping) else list(documents)
    index = pd.Index(list(documents), dtype=None if items else object) if labelled else pd.RangeIndex(len(items))
    if all(isinstance(item, Mapping) for item in items) and items:
        return pd.DataFrame([dict(item) for item in items], index=index)
    wrong = next((item for item in items if not isinstance(item, str)), None)
    if wrong is not None:
        raise UsageError(
            f"from_documents takes texts, or records (dicts), all of one kind; found {type(wrong).__name__}."
        )
    return pd.DataFrame({TEXT_COLUMN: pd.Series(items, index=index, dtype=None if items else object)})

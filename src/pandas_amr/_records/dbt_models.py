"""The dbt model whose Python code is running, as dbt knows it.

dbt's adapters write a model into a temporary file and run that, so that a line of it names a file
that is gone once somebody reads the warning. What they run it for stands in a frame further out.
dbt's log holds what dbt is told; Python's warnings go to stderr alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

ADAPTERS = "dbt.adapters.base.impl"  # a module that every adapter loads
LOGGING = "dbt.adapters.events.logging"
SUBMIT = "submit_python_job"  # of an adapter: it runs a model, which it has as `parsed_model`
COMPILED = "dbtObj"  # a class that dbt appends to a model's code
NAME = "pandas_amr"


def find_dbt_model(frame: FrameType | None) -> str | None:
    """Find the model that dbt runs on this thread: its file in the project; None if it runs none.

    Args:
        frame: the innermost frame of the thread's stack to look at.
    """
    if ADAPTERS not in sys.modules:
        return None
    while frame is not None:
        if frame.f_code.co_name == SUBMIT:
            path = _path_of(frame.f_locals.get("parsed_model"))
            if path is not None:
                return path
        frame = frame.f_back
    return None


def _path_of(model: object) -> str | None:
    path = model.get("original_file_path") if isinstance(model, dict) else None
    return path if isinstance(path, str) and path else None


def is_model_code(frame: FrameType) -> bool:
    """Tell whether a frame runs the code of a model itself, and not that of a module it uses."""
    return COMPILED in frame.f_globals


def log_in_dbt(text: str) -> None:
    """Write a warning into dbt's log, beside the model that runs."""
    logging = sys.modules.get(LOGGING)
    if logging is not None:
        logging.AdapterLogger(NAME).warning(text)

"""The log ``pandas_amr``: never with keys, and never with the text of cells."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("pandas_amr")


def has_readers() -> bool:
    """Tell whether anybody takes what is logged.

    If nobody does, Python writes what is logged at WARNING to stderr, as it does with warnings and
    errors: what one of these says would stand there twice.
    """
    return LOGGER.hasHandlers()

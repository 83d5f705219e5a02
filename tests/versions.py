"""What need not be shown on every version of pandas."""

from __future__ import annotations

import os

import pandas as pd
import pytest

# On the lowest versions of all packages (`make test-lowest`) everything runs: those of others play a part here.
once = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3 and "AMR_LOWEST" not in os.environ,
    reason="once is enough: nothing here depends on the version of pandas",
)

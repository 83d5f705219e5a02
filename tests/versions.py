"""What need not be shown twice."""

from __future__ import annotations

import pandas as pd
import pytest

once = pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) < 3, reason="once is enough: nothing here depends on the version of pandas"
)

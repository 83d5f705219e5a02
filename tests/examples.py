"""How many examples a property is tried with."""

from __future__ import annotations

import os


def examples(whole: int) -> int:
    """Tell how many of a whole run's examples to try: a tenth, all in a long run, or what ``AMR_EXAMPLES`` says."""
    asked = os.environ.get("AMR_EXAMPLES", "")
    if asked == "long":
        return whole
    return int(asked) if asked else -(-whole // 10)

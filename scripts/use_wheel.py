"""Use the installed package alone, for one real run against a server that plays the provider."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pandas as pd

import pandas_amr as amr
from pandas_amr.testing import ScriptedServer, findings

SOLD = {"sold 3 apples": 3, "sold 4 pears": 4}


def answer(request: Any) -> Any:
    """Play the provider."""
    return findings(request, lambda unit: {"sold": SOLD[unit["text"]]})


def main() -> None:
    """Check what was installed, then run it."""
    package = Path(amr.__file__).parent
    assert package.is_relative_to(sys.prefix), f"{package} is not what was installed"
    assert (package / "py.typed").is_file(), "the wheel has no py.typed"
    assert importlib.metadata.version("pandas-amr") == amr.__version__
    frame = pd.DataFrame({"text": list(SOLD)})
    with ScriptedServer(answer) as server:
        result = frame.amr.map_reduce(
            map="How many were sold?",
            finding={"sold": int},
            reduce={"total": ("sold", "sum")},
            lm=server.lm(),
        )
    assert result.findings["sold"].tolist() == [3, 4]
    assert result.output["total"] == 7
    assert result.failures.empty
    print(f"pandas-amr {amr.__version__} with pandas {pd.__version__}: {result!r}")


if __name__ == "__main__":
    main()

"""An OpenAI-compatible server on loopback whose answers a Python function gives.

For tests of pipelines, yours and this library's: the real client talks HTTP to it. Nothing is
patched, no key is needed and nothing is paid. A request that the function does not answer fails
the test.

Example:
    >>> import pandas as pd, pandas_amr as amr
    >>> def provider(request):
    ...     return findings(
    ...         request, lambda unit: {"mood": "good" if "nice" in unit["text"] else "bad"}
    ...     )
    >>> df = pd.DataFrame({"text": ["a nice day", "rain"]})
    >>> finding = {"mood": ["good", "bad"]}
    >>> with ScriptedServer(provider) as server:
    ...     df.amr.map("What is the mood?", finding=finding, lm=server.lm())["mood"].tolist()
    ['good', 'bad']
"""

from __future__ import annotations

from pandas_amr.testing.answers import Call, Drop, Raw, Status
from pandas_amr.testing.completions import CHARACTERS_PER_TOKEN
from pandas_amr.testing.limits import RateLimit
from pandas_amr.testing.request import ScriptedRequest, findings
from pandas_amr.testing.server import ScriptedServer

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "Call",
    "Drop",
    "RateLimit",
    "Raw",
    "ScriptedRequest",
    "ScriptedServer",
    "Status",
    "findings",
]

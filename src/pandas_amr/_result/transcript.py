"""What ``result.look(...)`` gives: a conversation to read, in a terminal or in a notebook."""

from __future__ import annotations

from dataclasses import dataclass

from pandas_amr._records.public import public
from pandas_amr._result.transcript_html import transcript_html
from pandas_amr._result.transcript_page import Page
from pandas_amr._result.transcript_text import transcript_text


@public
@dataclass(frozen=True, repr=False)
class Transcript(Page):
    """What agents did for a row, or in a node: what ``result.look(...)`` gives.

    It reads as a conversation, in a notebook and in a terminal (``print``). Texts are cut to what
    can be read; what is cut is counted.

    Attributes:
        title: the row, or the node.
        facts: what came of it, each with its name: status, finding, cost.
        notes: what a reader has to know, a sentence each.
        sections: the nodes, the earliest first.

    Example:
        >>> import pandas as pd, pandas_amr as amr
        >>> df = pd.DataFrame({"text": ["good", "bad"]})
        >>> result = df.amr.map_reduce(map=lambda shard: [{"n": 1}] * len(shard), reduce=len)
        >>> result.look(0)
        Row 0
          status: ok
          n: 1
          A function of yours made its finding: no model was asked.
    """

    def __str__(self) -> str:
        return transcript_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return transcript_html(self)

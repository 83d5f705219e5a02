"""What a process leaves of a journal when it ends: one file, which holds everything."""

from __future__ import annotations

import pytest

import pandas_amr as amr
from processes import run_python
from versions import once

# The journal is still referred to when the process ends, so that no collector closes it before.
SCRIPT = """
import builtins, sys
import pandas as pd, pandas_amr as amr

builtins.journal = amr.Journal(sys.argv[1])

def count(shard):
    return [{"n": len(text)} for text in shard["text"]]

count.amr_version = "1"
pd.DataFrame({"text": ["a", "bb"]}).amr.map(count, finding={"n": int}, journal=builtins.journal)
"""
ENDS = {"its last line": "", "an exit code": "sys.exit(3)", "an error": "raise KeyError('x')"}


@pytest.mark.long
@once
@pytest.mark.parametrize("end", ENDS)
def test_the_file_alone_holds_what_was_found_whatever_way_the_process_ends(end, tmp_path):
    run_python(SCRIPT + ENDS[end], tmp_path / "journal.db")
    assert [path.name for path in tmp_path.iterdir()] == ["journal.db"]
    copy = tmp_path / "elsewhere.db"
    copy.write_bytes((tmp_path / "journal.db").read_bytes())
    assert len(amr.Journal(copy).export()) == 2

"""Counting tokens needs no network."""

from __future__ import annotations

import os
import subprocess
import sys

from pandas_amr._records.tokens import counter_for
from versions import once


def test_known_models_count_as_their_tokenizers_do():
    assert counter_for("gpt-4o")("The quick brown fox") == 4
    assert counter_for("gpt-3.5-turbo")("The quick brown fox") == 4
    assert counter_for("some-model-of-ones-own")("<|endoftext|>") > 1


@once
def test_counting_touches_no_network_and_leaves_the_environment_alone(tmp_path):
    code = """
import sys
def audit(event, args):
    if event == "socket.connect" or event == "socket.getaddrinfo":
        raise RuntimeError(event)
sys.addaudithook(audit)
import os
from pandas_amr._records.tokens import counter_for
print([counter_for(name)("one two three") for name in ("gpt-4o", "gpt-4", "text-davinci-003", "own")])
print("TIKTOKEN_CACHE_DIR" in os.environ)
"""
    env = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    env.pop("TIKTOKEN_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines() == ["[3, 3, 3, 3]", "False"]


def test_where_there_is_no_vocabulary_tokens_are_estimated_with_one_warning_and_corrected(tmp_path):
    """A cache folder of the user's that is empty, and no network."""
    code = """
import sys, warnings
def audit(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("no network")
sys.addaudithook(audit)
from pandas_amr._records.tokens import counter_for, learn_token_ratio
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    counts = [counter_for("own")("x" * 300), counter_for("own")("x" * 300)]
print(counts, len(caught), str(caught[0].message)[:47])
for _ in range(60):
    learn_token_ratio("own", characters=400, tokens=100)
print(counter_for("own")("x" * 300))
"""
    env = {**os.environ, "TIKTOKEN_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.splitlines() == ["[100, 100] 1 tiktoken has no vocabulary 'o200k_base' at hand", "75"]


@once
def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path):
    code = "from pandas_amr._records.tokens import counter_for; print(counter_for('gpt-4o')('one two'))"
    blocked = tmp_path / "file"
    blocked.write_text("")
    env = {**os.environ, "HOME": str(blocked), "XDG_CACHE_HOME": str(blocked / "cache"), "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "2\n"

"""Any corpus as a frame: files of every kind, long texts in chunks."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pandas_amr as amr
from pandas_amr._corpus import _regex

SOURCE = Path(amr.__file__).parent


def test_this_package_s_own_source_is_a_frame():
    frame = amr.read_files(SOURCE / "**" / "*.py")
    paths = sorted(str(path) for path in SOURCE.rglob("*.py"))
    assert sorted(frame["path"]) == paths
    assert frame.attrs["left_out"] == []
    own = frame.set_index("path").loc[str(SOURCE / "_corpus.py")]
    assert own["content"] == (SOURCE / "_corpus.py").read_text(encoding="utf-8")
    assert own["size"] == (SOURCE / "_corpus.py").stat().st_size


@pytest.fixture
def hostile(tmp_path):
    (tmp_path / "good.txt").write_text("good", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "latin.txt").write_bytes("caf\u00e9".encode("latin-1"))
    (tmp_path / "bom.txt").write_text("wide", encoding="utf-16")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\xff\xd8\x00")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0\0")
    with (tmp_path / "sparse.txt").open("wb") as file:
        file.truncate(200 << 20)
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.txt").symlink_to(tmp_path / "self.txt")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "folder.txt" / "inner.txt").write_text("inner", encoding="utf-8")
    return tmp_path


def test_hostile_files_are_left_out_and_told_and_memory_is_bounded(hostile):
    tracemalloc.start()
    with pytest.warns(amr.CorpusWarning, match=r"of \d+ files were left out: .*\.\.\."):
        frame = amr.read_files(hostile / "**" / "*.txt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20
    read = {Path(path).name: content for path, content in zip(frame["path"], frame["content"], strict=True)}
    assert read == {
        "good.txt": "good",
        "empty.txt": "",
        "latin.txt": "caf\u00e9",
        "bom.txt": "wide",
        "inner.txt": "inner",
    }
    left = {Path(path).name: reason for path, reason in frame.attrs["left_out"]}
    assert left.keys() == {"bad.txt", "binary.txt", "sparse.txt", "pipe.txt", "self.txt", "gone.txt"}
    assert left["binary.txt"] == "binary"
    assert left["pipe.txt"] == "no regular file"
    assert left["sparse.txt"] == f"{200 << 20} bytes, more than {20 << 20}"
    assert "not text in utf-16" in left["bad.txt"]


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_left_out(tmp_path):
    (tmp_path / "closed.txt").write_text("x", encoding="utf-8")
    (tmp_path / "closed.txt").chmod(0)
    with pytest.warns(amr.CorpusWarning, match="Permission denied"):
        assert amr.read_files(tmp_path).empty


def test_there_is_a_bound_on_all_files_together(tmp_path):
    for name in "abc":
        (tmp_path / name).write_text("x" * 100, encoding="utf-8")
    with pytest.warns(amr.CorpusWarning, match="max_total_bytes"):
        assert len(amr.read_files(tmp_path, max_total_bytes=150)) == 2


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.py", "a.py", True),
        ("*.py", "b/a.py", False),
        ("**/*.py", "a.py", True),
        ("**/*.py", "b/c/a.py", True),
        ("b/**/a.py", "b/a.py", True),
        ("b/**", "b/c/d", True),
        ("[ab].txt", "a.txt", True),
        ("[!ab].txt", "a.txt", False),
        ("a?c", "abc", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern, path, matches):
    assert bool(_regex(pattern).fullmatch(path)) == matches


def test_several_patterns_read_each_file_once(tmp_path):
    for name in ("a.py", "b.txt", "c.md"):
        (tmp_path / name).write_text(name)
    frame = amr.read_files([tmp_path / "*.py", str(tmp_path / "a*"), tmp_path / "*.md"])
    assert frame["content"].tolist() == ["a.py", "c.md"]
    with pytest.raises(amr.UsageError, match=r"\[z-a\].*cannot be used"):
        amr.read_files(str(tmp_path / "[z-a]*"))


def test_wrong_patterns_are_told(tmp_path):
    with pytest.raises(amr.UsageError, match="no folder"):
        amr.read_files(tmp_path / "none" / "*.txt")
    with pytest.raises(amr.UsageError, match="No file matches"):
        amr.read_files(tmp_path / "*.txt")


@given(st.text(max_size=400), st.integers(2, 40), st.integers(0, 10))
def test_chunks_are_the_text_at_their_places(text, size, overlap):
    text = text.replace("\0", "")
    frame = amr.read_text("\n" + text, chunk_tokens=size + overlap, overlap=overlap)
    whole = "\n" + text
    assert [whole[start:end] for start, end in zip(frame["start"], frame["end"], strict=True)] == frame["text"].tolist()
    assert frame["end"].tolist()[-1] == len(whole)
    assert (frame["start"].iloc[1:].to_numpy() <= frame["end"].iloc[:-1].to_numpy()).all()


def test_a_file_is_read_in_chunks_and_wrong_calls_are_told(tmp_path):
    (tmp_path / "book.txt").write_text("A sentence. " * 500, encoding="utf-8")
    by_path = amr.read_text(tmp_path / "book.txt", chunk_tokens=100, overlap=0)
    by_name = amr.read_text(str(tmp_path / "book.txt"), chunk_tokens=100, overlap=0)
    pd.testing.assert_frame_equal(by_path, by_name)
    assert "".join(by_path["text"]) == "A sentence. " * 500
    assert amr.read_text("").empty
    with pytest.raises(amr.UsageError, match="below chunk_tokens"):
        amr.read_text("x", chunk_tokens=10, overlap=10)
    with pytest.raises(amr.UsageError, match="No such file"):
        amr.read_text(tmp_path / "none.txt")
    with pytest.raises(amr.UsageError, match="a text or a path"):
        amr.read_text(7)

"""Any corpus as a frame: files of every kind, long texts in chunks."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pandas_amr as amr
from examples import examples
from pandas_amr._units.file_patterns import compile_glob

SOURCE = Path(amr.__file__).parent


def test_this_package_s_own_source_is_a_frame():
    frame = amr.read_files(SOURCE / "**" / "*.py")
    paths = sorted(str(path) for path in SOURCE.rglob("*.py"))
    assert sorted(frame["path"]) == paths
    assert frame.attrs["left_out"] == []
    own = frame.set_index("path").loc[str(SOURCE / "_units" / "corpus.py")]
    assert own["content"] == (SOURCE / "_units" / "corpus.py").read_text(encoding="utf-8")
    assert own["size"] == (SOURCE / "_units" / "corpus.py").stat().st_size


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda: amr.from_documents(pd.DataFrame({"text": ["a"]})), "a list or a dict of documents, not DataFrame"),
        (lambda: amr.read_text("a b", chunk_tokens="5"), r"chunk_tokens=...\) takes a whole number from 1, not '5'"),
        (lambda: amr.read_text("a b", chunk_tokens=0), r"chunk_tokens=...\) takes a whole number from 1, not 0"),
        (lambda: amr.read_text("a b", overlap=-1), r"overlap=...\) takes a whole number from 0, not -1"),
        (lambda: amr.read_text("a b", chunk_tokens=5, overlap=5), "overlap= must be below chunk_tokens="),
    ],
)
def test_what_makes_no_frame_of_texts_is_told(call, reason):
    with pytest.raises(amr.UsageError, match=reason):
        call()


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
    assert left["pipe.txt"] == "not a regular file"
    assert left["sparse.txt"] == f"{200 << 20} bytes, more than {20 << 20}"
    assert "not text in utf-16" in left["bad.txt"]


CLOSED = """
import json, pathlib, sys, warnings
sys.path.insert(0, sys.argv[1])
import pandas_amr as amr
here = pathlib.Path.cwd() / "rows"
(here / "shut" / "below").mkdir(parents=True)
for name in ("open.txt", "closed.txt", "shut/in.txt", "shut/below/in.txt"):
    (here / name).write_text(name)
(here / "linked.txt").symlink_to(here / "shut" / "in.txt")
(here / "listed").mkdir()
(here / "listed" / "in.txt").write_text("x")
(here / "listed").chmod(0o400)
(here / "closed.txt").chmod(0)
(here / "shut").chmod(0)
warnings.simplefilter("ignore", amr.CorpusWarning)
told = {}
for pattern in (".", "*.txt", "closed.txt", "shut", "shut/*.txt", "shut/below/*.txt"):
    frame = amr.read_files(here / pattern)
    short = lambda path: pathlib.Path(path).relative_to(here).as_posix()
    left = [[short(path), reason] for path, reason in frame.attrs["left_out"]]
    told[pattern] = [[short(path) for path in frame["path"]], left]
for name in ("shut", "listed"):
    (here / name).chmod(0o700)
print(json.dumps(told))
"""


def test_what_may_not_be_read_is_left_out_folders_too(anybody_s, plain):
    command = [sys.executable, *plain, "-c", CLOSED, str(SOURCE.parent)]
    environment = os.environ | {"TMPDIR": anybody_s}
    done = subprocess.run(command, capture_output=True, text=True, cwd=anybody_s, env=environment)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    file = ["closed.txt", "Permission denied"]
    folder = ["shut", "a folder that cannot be listed: Permission denied"]
    denied = [["linked.txt", "Permission denied"], ["listed/in.txt", "Permission denied"]]
    assert told["."] == [["open.txt"], [file, *denied, folder]]
    assert told["*.txt"] == [["open.txt"], [file, denied[0]]]  # nothing below the closed folder was asked for
    assert told["closed.txt"] == [[], [file]]
    assert told["shut"] == told["shut/*.txt"] == [[], [folder]]
    assert told["shut/below/*.txt"] == [[], [["shut/below", folder[1]]]]


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
    assert bool(compile_glob(pattern).fullmatch(path)) == matches


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
    with pytest.raises(amr.UsageError, match=r"'' is not a path; for the working folder: '\.'"):
        amr.read_files("")
    with pytest.raises(amr.UsageError, match="'s3://bucket/a.txt' is not a path of this machine"):
        amr.read_files(["s3://bucket/a.txt"])


def test_a_path_may_begin_in_a_home(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert amr.read_files("~/*.txt")["content"].tolist() == ["a"]
    with pytest.raises(amr.UsageError, match="no folder '~nobody-of-this-name'"):
        amr.read_files("~nobody-of-this-name/*.txt")


def test_what_is_there_under_exactly_that_name_is_meant_even_with_brackets(tmp_path):
    (tmp_path / "data[1]" / "in*").mkdir(parents=True)
    (tmp_path / "data1").mkdir()
    for name in ("data[1]/a.txt", "data[1]/in*/b.txt", "data1/c.txt", "f[1].txt", "f1.txt"):
        (tmp_path / name).write_text(name)
    told = {
        "data[1]": ["data[1]/a.txt", "data[1]/in*/b.txt"],
        "data[1]/*.txt": ["data[1]/a.txt"],
        "data[1]/in*/*.txt": ["data[1]/in*/b.txt"],
        "f[1].txt": ["f[1].txt"],
        "f[12].txt": ["f1.txt"],
        "data[12]/*.txt": ["data1/c.txt"],
        "data*/**/*.txt": ["data1/c.txt", "data[1]/a.txt", "data[1]/in*/b.txt"],
        "*/in*/*": ["data[1]/in*/b.txt"],
    }
    for pattern, names in told.items():
        assert amr.read_files(tmp_path / pattern)["content"].tolist() == names, pattern


def test_a_file_whose_name_is_not_utf_8_is_read_with_its_bytes_shown(tmp_path):
    (tmp_path / os.fsdecode(b"\xff\xfe.txt")).write_text("odd", encoding="utf-8")
    (tmp_path / os.fsdecode(b"\xfe.bin")).write_bytes(b"\0")
    (tmp_path / "caf\u00e9.txt").write_text("even", encoding="utf-8")
    with pytest.warns(amr.CorpusWarning, match=r"xfe\.bin: binary"):
        frame = amr.read_files(tmp_path)
    assert [Path(path).name for path in frame["path"]] == [r"\xff\xfe.txt", "caf\u00e9.txt"]
    assert frame["content"].tolist() == ["odd", "even"]


def test_files_come_in_the_order_of_their_paths_and_a_file_behind_links_once(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/z.txt", "a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "0.txt").symlink_to(tmp_path / "b.txt")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    for pattern in (tmp_path, [tmp_path / "b.txt", tmp_path / "linked", tmp_path, tmp_path / "a.txt"]):
        frame = amr.read_files(pattern)
        assert frame["path"].is_monotonic_increasing
        assert frame["content"].tolist() == ["a.txt", "a/z.txt", "b.txt"]
    assert amr.read_files(tmp_path / "0.txt")["content"].tolist() == ["b.txt"]


@pytest.mark.parametrize("encoding", ["utf-9", "", "hex", 8])
def test_an_encoding_that_nobody_knows_is_told_before_anything_is_read(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(amr.UsageError, match="Unknown text encoding"):
        amr.read_files(tmp_path, encoding=encoding)


def test_an_encoding_that_is_given_holds_for_all_files(tmp_path):
    (tmp_path / "a.txt").write_bytes("h\u00e9".encode("utf-16-le"))
    (tmp_path / "b.txt").write_bytes(b"odd")
    with pytest.warns(amr.CorpusWarning, match="not text in utf-16-le"):
        assert amr.read_files(tmp_path, encoding="utf-16-le")["content"].tolist() == ["h\u00e9"]


@pytest.mark.parametrize(
    ("said", "encoding"),
    [("shift_jis", "shift_jis"), ("hex", "utf-8"), ("utf-16", "utf-8"), ("no-such", "utf-8"), ("latin-1", "utf-8")],
)
def test_a_page_is_in_the_encoding_that_it_declares_where_it_can_be(tmp_path, said, encoding):
    page = f"<html><head><META charset='{said}'></head>\u65e5\u672c"
    (tmp_path / "a.html").write_bytes(page.encode(encoding))
    [content] = amr.read_files(tmp_path)["content"]
    assert content.endswith("\u65e5\u672c")


@pytest.mark.parametrize("wrong", [None, b"a.txt", 7, ["a.txt", None]])
def test_what_is_no_path_is_told(wrong):
    with pytest.raises(amr.UsageError, match="takes a path, a pattern, or a list of them"):
        amr.read_files(wrong)


HAS_FILES = importlib.util.find_spec("markitdown") is not None
BROKEN_PDF = b"%PDF-1.4\n1 0 obj <</Type/Catalog>> endobj\n"


@pytest.mark.skipif(HAS_FILES, reason="pandas-amr[files] is installed")
def test_documents_say_what_would_read_them(tmp_path):
    (tmp_path / "a.pdf").write_bytes(BROKEN_PDF)
    (tmp_path / "b.docx").write_bytes(b"PK\3\4\0\0\0\0")
    (tmp_path / "c.txt").write_bytes(BROKEN_PDF)
    (tmp_path / "d.html").write_text("<p>text</p>", encoding="utf-8")
    with pytest.warns(amr.CorpusWarning, match="3 of 4"):
        frame = amr.read_files(tmp_path)
    assert frame["content"].tolist() == ["<p>text</p>"]
    assert {reason for _, reason in frame.attrs["left_out"]} == {"pip install 'pandas-amr[files]' reads it"}
    with pytest.raises(amr.UsageError, match=r"pandas-amr\[files\]"):
        amr.read_text(tmp_path / "a.pdf")


@pytest.mark.skipif(not HAS_FILES, reason="takes pandas-amr[files]")
def test_documents_become_markdown_and_broken_ones_are_told(tmp_path):
    (tmp_path / "latin.html").write_bytes("<p>Caf\u00e9</p>".encode("latin-1"))
    (tmp_path / "late.html").write_bytes(b"<p>word</p>" * 1000 + "<p>cr\u00e8me</p>".encode("latin-1"))
    (tmp_path / "wide.html").write_bytes("<p>Caf\u00e9</p>".encode())
    page = "<head><meta charset='shift_jis'></head><h1>\u65e5\u672c\u8a9e</h1>"
    (tmp_path / "declared.htm").write_bytes(page.encode("shift_jis"))
    (tmp_path / "broken.pdf").write_bytes(BROKEN_PDF)
    (tmp_path / "hidden.txt").write_bytes(BROKEN_PDF)
    (tmp_path / "broken.docx").write_bytes(b"PK\3\4\0\0\0\0")
    with pytest.warns(amr.CorpusWarning, match="3 of 7"):
        frame = amr.read_files(tmp_path)
    read = {Path(path).name: text for path, text in zip(frame["path"], frame["content"], strict=True)}
    assert read.pop("late.html").endswith("cr\u00e8me")
    assert read == {"latin.html": "Caf\u00e9", "wide.html": "Caf\u00e9", "declared.htm": "# \u65e5\u672c\u8a9e"}
    assert set(frame["encoding"]) == {"markdown"}
    left = {Path(path).name: reason for path, reason in frame.attrs["left_out"]}
    assert left.keys() == {"broken.pdf", "hidden.txt", "broken.docx"}
    assert all("could not be converted" in reason for reason in left.values())


@settings(deadline=None, max_examples=examples(100))
@given(st.text(max_size=400), st.integers(2, 40), st.integers(0, 10))
def test_chunks_are_the_text_at_their_places(text, size, overlap):
    frame = amr.read_text(text, chunk_tokens=size + overlap, overlap=overlap)
    assert [text[start:end] for start, end in zip(frame["start"], frame["end"], strict=True)] == frame["text"].tolist()
    assert max(frame["end"], default=0) == len(text)
    assert (frame["start"].iloc[1:].to_numpy() <= frame["end"].iloc[:-1].to_numpy()).all()


@pytest.mark.parametrize("text", ["word " * 100, "word " * 200, "\u65e5" * 300, "a\0b", "x" * 255 + "/" + "y" * 300])
def test_a_text_that_could_name_no_file_is_a_text(text):
    assert "".join(amr.read_text(text, overlap=0)["text"]) == text


def test_chunks_overlap_by_a_fifth_and_at_most_a_hundred_tokens_unless_told():
    text = " ".join(f"word{n}" for n in range(2000))
    for size, overlap in {1: 0, 4: 0, 50: 10, 499: 99, 500: 100, 1000: 100}.items():
        by_default = amr.read_text(text, chunk_tokens=size)
        pd.testing.assert_frame_equal(by_default, amr.read_text(text, chunk_tokens=size, overlap=overlap))
    with pytest.raises(amr.UsageError, match="takes a whole number from 1, not 0"):
        amr.read_text("x", chunk_tokens=0)


@pytest.mark.parametrize(("documents", "found"), [(["a", None], "None"), ([None], "None"), ([{"t": 1}, None], "dict")])
def test_documents_that_are_missing_are_told(documents, found):
    with pytest.raises(amr.UsageError, match=f"all of one kind; found {found}"):
        amr.from_documents(documents)


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

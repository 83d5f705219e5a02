"""What a result shows of itself: its card and its report, and the reprs of what belongs to it."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest

import pandas_amr as amr
import shown
from pandas_amr._records import html
from pandas_amr.testing import ScriptedServer, Status

VOID = {"meta", "input", "br", "hr", "path", "rect"}
FETCHES = {"src", "srcset", "data", "action", "formaction", "poster", "background", "xlink:href", "ping"}


class Page(HTMLParser):
    """HTML, read: its texts by element, and whatever in it could run or fetch."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.texts: list[str] = []
        self.cells: list[str] = []
        self.headings: list[str] = []
        self.summaries: list[str] = []
        self.scripts: list[str] = []
        self.links: list[str] = []
        self.dangers: list[str] = []
        self.feed(text)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.open += [] if tag in VOID else [tag]
        lists = {"td": self.cells, "th": self.cells, "h2": self.headings, "summary": self.summaries}
        if tag in lists:
            lists[tag].append("")
        for name, value in attrs:
            if name.startswith("on") or name in FETCHES:
                self.dangers.append(f"{tag} {name}={value}")
            if name == "href":
                self.links.append(value)
        if tag in {"iframe", "img", "object", "embed", "link", "base", "form"}:
            self.dangers.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_comment(self, data: str) -> None:
        self.dangers.append(f"comment {data}")

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
            return
        if "style" in self.open:
            return
        self.texts.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.cells[-1] += data
        if "h2" in self.open and self.headings:
            self.headings[-1] += data
        if "summary" in self.open:
            self.summaries[-1] += data


def card(result: amr.Result) -> Page:
    return Page(result._repr_html_())


def report(result: amr.Result, **options: Any) -> Page:
    text = result.to_html(**options)
    assert text is not None
    return Page(text)


@pytest.fixture(scope="module")
def results():
    """One result of each kind, made when it is first asked for."""

    class Results(dict):
        def __missing__(self, kind: str) -> amr.Result:
            self[kind] = shown.KINDS[kind]()
            return self[kind]

    return Results()


pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")

# -- the card --------------------------------------------------------------------------------------

# What a card and a report say of each kind of result, in this order.
SAID: dict[str, list[str]] = {
    "text": [shown.TASK, "Fix the battery first", "Battery: dies within days.", "Result 12 of 12 rows, 5 calls, $"],
    "scalar": ["3.5", "Result 12 of 12 rows, 4 calls, $"],
    "frame": ["severity_mean", "4.5", "Result 12 of 12 rows"],
    "objects": ["which <b>nobody</b> expects.", "It breaks at first use.", "Result 12 of 12 rows"],
    "object": ["worst", "It leaks.", "battery", "Result 12 of 12 rows"],
    "failures": [
        "Result 10 of 12 rows",
        "2 failed",
        "The server answered 400: The content was filtered.",
        "R-005, R-007",
    ],
    "reduce failed": ["The reduce failed: The server answered 400: The content was filtered.", "Result 12 of 12 rows"],
    "stopped": [
        "The run stopped early: The budget of 2 calls is used up",
        "Skipped: 6 of 12 rows; the run ended before their turn.",
        "Result 6 of 12 rows",
    ],
    "recipe": ["battery", "5", "strap", "4", "Result 12 rows"],
}


def assert_in_order(text: str, parts: list[str]) -> None:
    at = 0
    for part in parts:
        assert part in text[at:], part
        at = text.index(part, at) + len(part)


@pytest.mark.parametrize("kind", SAID)
@pytest.mark.sampled(4)
def test_a_card_shows_the_answer_first_then_how_much_it_rests_on(results, kind):
    page = card(results[kind])
    assert_in_order(page.text, SAID[kind])
    assert (page.dangers, page.scripts, page.open) == ([], [], [])


def test_findings_stand_beside_what_was_read_and_other_columns_behind_them(results):
    cells = card(results["scalar"]).cells
    first = cells.index("review")
    assert cells[first : first + 7] == ["review", "text", "kind", "severity", "customer", "shop", "stars"]
    assert cells[first + 7 : first + 10] == ["R-000", f"{shown.SENTENCES[0]} (0)", "battery"]
    cells = card(results["recipe"]).cells
    first = cells.index("review")
    assert cells[first : first + 4] == ["review", "text", "kind", "severity"]


def test_failures_are_grouped_by_reason_with_their_number_and_labels(results):
    page = card(results["failures"])
    assert page.summaries[0] == "Failed: 2 rows, 1 reason"
    at = page.cells.index("The server answered 400: The content was filtered.")
    assert page.cells[at + 1 : at + 4] == ["2", "model", "R-005, R-007"]
    assert "Failed" not in card(results["text"]).text


def test_the_cost_tells_what_the_journal_had_apart(tmp_path):
    with ScriptedServer(shown.answer) as server:
        options = shown.MAPPED | {"reduce": {"kind": "value_counts"}, "journal": tmp_path / "journal.db"}
        shown.rows(6).amr.map_reduce(lm=server.lm(), **options)
        result = shown.rows(12).amr.map_reduce(lm=server.lm(), **options)
    for page in (card(result), report(result)):
        assert "6 from journal" in page.text
        at = page.cells.index("money")
        assert page.cells[at - 6 : at + 1] == [
            "calls",
            "sent",
            "from journal",
            "tokens in",
            "of them cached",
            "tokens out",
            "money",
        ]
        assert page.cells[at + 1 : at + 6] == ["map", "scripted", "2", "2", "6"]
        assert page.cells[at + 9] == "unknown"  # never 0


def test_a_card_says_what_is_evidence_for_the_answer_and_which_calls_show_more(results):
    page = card(results["text"])
    assert "Sources: 33% of the rows are evidence for the answer" in page.summaries
    assert "R-000, R-003, R-006, R-009" in page.cells
    assert {"Cost", "Graph"} <= set(page.summaries)
    for call in ("result.explain(0)", "result.graph()", "result.timeline()", "result.look(label)", "result.to_html("):
        assert call in page.text


def test_a_run_that_ended_before_its_reduce_says_that_there_is_no_answer():
    def breaks(found: pd.DataFrame) -> None:
        raise ZeroDivisionError

    with ScriptedServer(shown.answer) as server, pytest.raises(amr.RunStopped) as caught:
        shown.rows().amr.map_reduce(lm=server.lm(), journal=False, reduce=breaks, **shown.MAPPED)
    assert "battery" in card(caught.value.partial).cells
    with pytest.raises(amr.ModelConfigError) as ended:
        shown.run(lambda request: Status(401), reduce="What should we fix first?")
    for error in (caught.value, ended.value):
        for page in (card(error.partial), report(error.partial)):
            assert "There is no answer: nothing was reduced." in page.text
    with ScriptedServer(shown.answer) as server:
        options = {name: value for name, value in shown.MAPPED.items() if name != "map"}
        found = shown.rows().amr.map(shown.MAPPED["map"], lm=server.lm(), journal=False, **options)
    assert "There is no answer" not in card(amr.result_of(found)).text


def test_a_card_of_many_rows_columns_reasons_and_items_says_what_it_leaves_out():
    frame = pd.DataFrame({f"c{n}": range(3000) for n in range(40)})

    def number(shard: pd.DataFrame) -> list[dict[str, int]]:
        return [{"found": value} for value in shard["c0"]]

    result = frame.amr.map_reduce(map=number, reduce=lambda found: list(range(1000)), journal=False)
    page = card(result)
    for text in ("The first 5 of 3,000 rows", "25 more columns: c15, c16", "... 950 more items"):
        assert text in page.text
    assert len(result._repr_html_()) < 40_000
    page = report(result)
    assert "The first 1,000 of 3,000 rows; the others are left out." in page.text
    assert "Left out: 1 of 41 columns." in page.text


def test_of_a_wide_frame_the_findings_are_shown():
    """They stood behind all that was read, where a card of 16 and a report of 40 columns end."""
    frame = pd.DataFrame({f"c{n}": ["x", "y"] for n in range(200)})
    options = {"reduce": len, "journal": False}
    result = frame.amr.map_reduce(map=lambda shard: [{"found": "f"} for _ in shard["c0"]], **options)
    for page, last in ((result._repr_html_(), "c14"), (result.to_html(), "c38")):
        heads = re.findall("<th scope=.col.[^>]*>([^<]*)</th>", page)
        assert heads[heads.index(last) + 1] == "found"
        assert "c39" not in heads


def test_a_streamed_result_shows_itself_without_reading_its_parts(tmp_path):
    file = tmp_path / "in.parquet"
    shown.rows(24).to_parquet(file)

    def one_way(shard: pd.DataFrame) -> list[dict[str, int]]:
        return [{"length": len(text)} for text in shard["text"]]

    result = amr.map_reduce(file, map=one_way, reduce={"length": "max"}, columns=["text"], out=tmp_path / "out")
    page = card(result)
    assert_in_order(page.text, ["length", "Result 24 of 24 rows", "The first 5 of 24 rows"])
    assert "Rows and findings" in report(result, max_rows=7).headings
    assert vars(result)["status"].__class__.__name__ == "partial"  # not built: it would have a row for each
    assert "The first 7 of 24 rows; the others are left out." in report(result, max_rows=7).text


# -- the report ------------------------------------------------------------------------------------

SECTIONS = {
    "text": ["Answer", "What the answer rests on", "Rows and findings", "Method", "Cost", "Graph"],
    "failures": ["Answer", "Rows and findings", "What failed", "Method", "Cost", "Graph"],
    "reduce failed": ["Rows and findings", "Method", "Cost", "Graph"],
    "recipe": ["Answer", "Rows and findings", "Method", "Cost", "Graph"],
}


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_report_has_a_section_for_what_its_reader_asks(results, kind):
    page = report(results[kind])
    headings = [heading for heading in page.headings if heading != "Fix the battery first"]
    assert headings == SECTIONS[kind]
    assert len(page.scripts) == 1
    assert (page.dangers, page.open) == ([], [])


def test_a_report_tells_the_method_in_words(results):
    page = report(results["text"])
    wanted = [
        "What was read of each row: text.",
        shown.MAPPED["map"],
        "one of: battery, strap, lid, other",
        "whole number",
        "Of 12 rows: 12 found.",
        "What should we fix first?",
        "scripted (map, reduce)",
        f"{results['text'].started:%Y-%m-%d %H:%M} UTC",
        f"pandas-amr {amr.__version__}, pandas {pd.__version__}",
    ]
    assert_in_order(page.text[page.text.index("Method") :], wanted)


def test_rows_without_a_finding_say_so_in_the_table(results):
    page = report(results["failures"])
    at = page.cells.index("(status)")
    assert page.cells[at + 1] == "(reason)"
    assert page.cells.count("failed") == 2
    assert page.cells[page.cells.index("failed") + 1] == "model: The server answered 400: The content was filtered."
    assert "how often each value occurs" in page.cells


@pytest.mark.parametrize("kind", ["text", "frame", "objects", "failures", "reduce failed", "stopped", "recipe"])
@pytest.mark.sampled(3)
def test_a_loaded_result_gives_the_same_card_and_report(results, tmp_path, kind):
    results[kind].save(tmp_path / "saved")
    again = amr.load(tmp_path / "saved")
    assert card(again).text == card(results[kind]).text
    assert again.started == results[kind].started
    texts = [re.sub("Report of .{20}", "", report(result).text) for result in (again, results[kind])]
    assert texts[0] == texts[1].replace("list of Fix(", "list of Output(")  # a plan's JSON names no class


def test_to_html_writes_a_file_as_pandas_does_and_replaces_it_as_a_whole(results, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("an older report")
    path.chmod(0o640)
    assert results["text"].to_html(path) is None
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert re.sub("Report of .{20}", "", text) == re.sub("Report of .{20}", "", results["text"].to_html())
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    buffer = io.StringIO()
    assert results["text"].to_html(buffer) is None
    assert buffer.getvalue().startswith("<!doctype html>")
    link = tmp_path / "link.html"
    link.symlink_to(path)
    results["scalar"].to_html(str(link))
    assert link.is_symlink()
    assert "3.5" in path.read_text(encoding="utf-8")


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "folder": (".", {}, "is a folder. Name a file, such as report.html."),
    "no folder": ("nowhere/report.html", {}, "cannot be written: No such file or directory."),
    "no path": (3, {}, r"to_html\(buf\) takes the path of a file, not 3."),
    "empty path": ("", {}, r"to_html\(buf\) takes the path of a file"),
    "column": (None, {"columns": ["texd"]}, r"there is no column 'texd'. Did you mean 'text'\?"),
    "text as columns": (None, {"columns": "text"}, "takes a list of columns, not 'text'"),
    "number as columns": (None, {"columns": 3}, "takes a list of columns, not 3"),
    "rows": (None, {"max_rows": -1}, "takes a number of rows from 0, not -1"),
    "no number of rows": (None, {"max_rows": "all"}, "takes a number of rows from 0, not 'all'"),
    "bool of rows": (None, {"max_rows": True}, "takes a number of rows from 0, not True"),
    "unknown argument": (None, {"max_row": 1}, "Did you mean 'max_rows'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_of_to_html_says_what_would_be_right(results, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, options, message = WRONG[name]
    with pytest.raises((amr.UsageError, TypeError), match=message):
        results["scalar"].to_html(path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_report_shows_only_what_was_read_unless_columns_says_more(results):
    assert "customer 1" not in report(results["scalar"]).text
    page = report(results["scalar"], columns=["severity", "customer"])
    assert "customer 1" in page.text
    assert shown.SENTENCES[0] not in page.text


def test_an_answer_of_whole_rows_shows_what_is_shown_of_rows():
    result = shown.run(plan={"ranking": {"field": "severity", "most": 2}})
    assert "customer 4" in card(result).text
    page = report(result)
    assert "customer" not in page.text
    assert page.cells[: page.cells.index("R-004")].count("R-000") == 1
    with ScriptedServer(shown.answer) as server, amr.settings(redact=mask):
        result = shown.rows().amr.map_reduce(
            lm=server.lm(), journal=False, **shown.MAPPED | {"plan": {"ranking": {"field": "severity", "most": 2}}}
        )
    assert "The █ died" in report(result).text
    assert "The battery" not in report(result).text


def test_a_column_that_agents_write_is_told_with_what_they_are_asked():
    result = shown.run(by="shop", reduce={"severity": "mean", "kind": amr.Agent("Which part is it?")})
    assert "written by a model: Which part is it?" in report(result).cells
    assert "Item 0, north, kind: 2 rows" in report(result).text
    assert "result.explain(0, group=...)" in card(result).text


def mask(text: str) -> str:
    return text.replace("battery", "█")


def test_a_report_shows_texts_as_they_were_sent_or_not_at_all(tmp_path):
    with ScriptedServer(shown.answer) as server, amr.settings(redact=mask):
        options = shown.MAPPED | {"columns": ["text", "customer"]}
        result = shown.rows(4).amr.map_reduce(lm=server.lm(), journal=False, reduce={"severity": "max"}, **options)
    page = report(result)
    assert "The █ died after two days" in page.text
    assert "The battery" not in page.text
    assert "Texts passed the function" in page.text
    assert "The battery died" in report(result, columns=["text"]).text
    result.save(tmp_path / "saved")
    page = report(amr.load(tmp_path / "saved"))
    assert "The columns that were read are left out" in page.text
    assert "died after two days" not in page.text


def test_a_report_of_maps_by_name_groups_and_columns_tells_each(tmp_path):
    with ScriptedServer(shown.answer) as server:
        options = shown.MAPPED | {
            "map": {"a": "What is it about?", "b": "How severe is it?"},
            "finding": {"a": {"kind": list(shown.PARTS)}, "b": {"severity": int}},
        }
        result = shown.rows().amr.map_reduce(lm=server.lm(), journal=False, reduce="Sum up.", by="shop", **options)
    page = report(result)
    for text in (
        "(a):",
        "What is it about?",
        "(b):",
        "How severe is it?",
        "The answer is given by shop.",
        "north: 2 rows",
    ):
        assert text in page.text
    assert "Item 0, north" in page.text


# -- what is hostile -------------------------------------------------------------------------------


def test_hostile_cells_are_shown_as_the_text_they_are():
    result = shown.hostile()
    for page in (report(result), card(result)):
        assert page.dangers == []
        assert page.open == []
        assert len(page.scripts) <= 1
        assert not any("hacked" in script for script in page.scripts)
        assert all(link.startswith(("https://", "http://", "mailto:")) for link in page.links)
    cells = report(result).cells
    for _, left in shown.HOSTILE.values():
        assert any(left in cell for cell in cells), left
    text = result.to_html()
    assert len(text) < 400_000
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    text.encode()


@pytest.mark.parametrize(
    "output",
    [
        pytest.param({text: [text] for text, _ in shown.HOSTILE.values()}, id="object"),
        pytest.param([{"<b>": text} for text, _ in shown.HOSTILE.values()], id="objects"),
        pytest.param([text for text, _ in shown.HOSTILE.values()], id="list"),
        pytest.param(shown.hostile_rows(), id="frame"),
        pytest.param(shown.hostile_rows()["text"], id="series"),
        pytest.param({1: {2: {3: {4: {5: "<b>"}}}}}, id="deep"),
        pytest.param(b"<b>\x00", id="bytes"),
        pytest.param(10**50_000, id="number"),
        pytest.param(shown.HOSTILE["megabyte"][0], id="megabyte"),
        pytest.param("![" * 2_000, id="brackets"),
        pytest.param("> " * 20_000, id="quotes"),
    ],
)
@pytest.mark.sampled(4)
def test_a_hostile_answer_of_any_kind_is_text(output):
    result = shown.hostile(output)
    for page in (card(result), report(result)):
        assert (page.dangers, page.open) == ([], [])
        assert not any("hacked" in script for script in page.scripts)


def test_hostile_groups_names_of_maps_and_reasons_of_failures_are_text():
    def some(shard: pd.DataFrame) -> list[dict[str, str]]:
        if "<script>" in shard["text"].iloc[0]:
            raise ValueError(shown.HOSTILE["end of a script"][0] + "\x1b[31m")
        return [{"found": "x"} for _ in shard["text"]]

    rows = shown.hostile_rows().reset_index(drop=True)
    rows = rows[[name != "half a character" for name in shown.HOSTILE]]  # no group has it as its key
    name = "<b onclick='x'>\x1b"
    options = {"reduce": {name: "count"}, "by": "text", "plan": {"shard_size": 1}, "journal": False}
    result = rows.amr.map_reduce(map={name: some}, **options)
    assert len(result.failures) == 2
    for page in (card(result), report(result)):
        assert (page.dangers, page.open) == ([], [])
        assert not any("hacked" in script for script in page.scripts)
        assert "a␀b" in page.cells
    assert "\x1b" not in result._repr_html_() + result.to_html()


def test_an_answer_that_holds_itself_or_has_no_text_is_shown():
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    circle: list[Any] = []
    circle.append(circle)
    assert "Mute without a text" in card(shown.hostile(Mute())).text
    assert card(shown.hostile(circle)).open == []


# -- primitives ------------------------------------------------------------------------------------

ANSWERS_IN_MARKDOWN = {
    "heading": ("# Title", "<h1>Title</h1>"),
    "line breaks": ("one\ntwo", "one<br>\ntwo"),
    "html": ("<b>x</b>", "&lt;b&gt;x&lt;/b&gt;"),
    "link": ("[x](https://a.b)", '<a href="https://a.b" rel="noopener noreferrer nofollow" title="https://a.b">x</a>'),
    "mail": ("<a@b.c>", 'href="mailto:a@b.c"'),
    "javascript": ("[x](javascript:y)", "<p>[x](javascript:y)</p>"),
    "javascript by entity": ("[x](javascript&#58;y)", "[x](javascript:y)"),
    "relative": ("[x](/y)", "[x](/y)"),
    "picture": ("![x](https://a.b)", ">[picture: x]</a>"),
    "picture without a name": ("![](https://a.b)", ">[picture: without a name]</a>"),
    "entity": ("&#x202e;", "\\u202e"),
}


@pytest.mark.parametrize("case", ANSWERS_IN_MARKDOWN)
def test_markdown_is_rendered_without_anything_that_runs_or_fetches(case):
    text, wanted = ANSWERS_IN_MARKDOWN[case]
    assert wanted in html.markdown(text)


def test_markdown_is_shown_as_text_where_its_library_is_not_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "markdown_it", None)
    assert html.markdown("# <b>") == '<pre class="amr-text" dir="auto"># &lt;b&gt;</pre>'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("one\u2028two\u2029three", "one\\u2028two\\u2029three"),
        ("a\ufeffb\u2060c\u2063d", "a\\ufeffb\\u2060c\\u2063d"),
        ("hidden\U000e0041\U000e007f", "hidden\\U000e0041\\U000e007f"),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", None),  # England
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u200f", None),  # Persian
        ("\u1781\u17d2\u1789\u17bb\u17c6\u200b\u179f\u17ca\u17b8", None),  # Khmer
        ("\U0001f469\u200d\U0001f469\u200d\U0001f467 soft\u00adhyphen", None),
    ],
)
def test_what_a_model_reads_and_a_browser_hides_is_shown_unless_texts_are_made_with_it(text, wanted):
    assert html.show_unprintable(text) == (text if wanted is None else wanted)


def test_a_missing_value_is_aligned_as_its_column():
    page = html.table(("text", "number"), [("a", 1), (None, None)])
    assert page.count('<td><span class="amr-missing">') == 1
    assert page.count('<td class="amr-number"><span class="amr-missing">') == 1


def test_an_element_escapes_every_text_but_html():
    made = html.element("p", "<", html.element("b", "&"), title='"x"', hidden=True, open=False, id=None)
    assert made == '<p title="&quot;x&quot;" hidden>&lt;<b>&amp;</b></p>'


# -- what belongs to a result ----------------------------------------------------------------------


def test_front_ends_get_plain_texts():
    """Marimo's encoder writes an empty object for a subclass of ``str``, and its page waits for ever."""
    result = shown.KINDS["text"]()
    shows = [result, result.look("R-001"), result.plan, result.total]
    bundles = [result.graph()._repr_mimebundle_(), result.timeline()._repr_mimebundle_()]
    texts = [each._repr_html_() for each in shows] + [text for bundle in bundles for text in bundle.values()]
    assert {type(text) for text in texts} == {str}


def test_usage_estimate_plan_score_and_verification_show_themselves():
    with ScriptedServer(shown.answer) as server:
        lm = server.lm(prices=(1.25, 10.0))
        plan = shown.rows().amr.plan(lm=lm, reduce={"kind": "value_counts"}, **shown.MAPPED)
        result = shown.rows().amr.map_reduce(plan=plan, lm=lm, journal=False)
        estimate = plan.estimate()
        verification = result.verify(share=0.5)
        calls = len(server.requests)
        score = result.score({"kind": ["battery", "other", "strap", "strap"] * 3})
        pages = [each._repr_html_() for each in (plan, estimate, result.total, verification, score, result)]
        assert len(server.requests) == calls  # to show asks nobody
    said = [
        ("Plan by user", "map_instruction", shown.MAPPED["map"], "4 calls", "columns not sent: 'customer'"),
        ("units", "12", "calls", "4", "in,", "$0.00"),
        ("calls", "sent", "from journal", "4", "$0.00"),
        ("Verification by scripted: kind 100.0%", "agreement", "kappa"),
        ("Score kind 9/12 right", "Fields", "accuracy", "0.75", "Classes"),
    ]
    for page, texts in zip(pages, said, strict=False):
        read = Page(page)
        assert (read.dangers, read.scripts, read.open) == ([], [], [])
        assert_in_order(read.text, list(texts))
    assert repr(estimate).startswith("<Estimate 12 units in 4 shards: 4 calls")
    assert repr(amr.Usage(calls=2, money=None)) == "Usage(calls=2, money=None)"
    assert repr(amr.Usage()) == "Usage()"

"""The report of a result, as a reader who has no Python opens it."""

import pandas as pd
import pytest

import shown

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")


@pytest.fixture
def report(tmp_path):
    """The file of a result's report."""

    def write(result, **options):
        path = tmp_path / "report.html"
        result.to_html(path, **options)
        return path

    return write


def visible_rows(page):
    return [row.locator("th").inner_text() for row in page.locator("#amr-rows tbody tr").all() if row.is_visible()]


@pytest.mark.parametrize("kind", ["text", "failures", "recipe"])
def test_a_report_is_quiet_and_fits_light_dark_and_narrow(show, look, report, kind):
    page = show(report(shown.KINDS[kind]()), look)
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    show.check(page)
    assert page.locator("h1").is_visible()
    assert len(visible_rows(page)) == 12
    assert page.locator("#amr-count").inner_text() == "12 of 12 rows"


def test_rows_are_searched_by_all_words_in_any_case(show, report):
    page = show(report(shown.KINDS["failures"]()))
    box = page.locator("#amr-search")
    for words, rows in {
        "BATTERY": ["R-000", "R-004", "R-008"],
        "phone battery (4)": ["R-004"],
        "failed filtered": ["R-005", "R-007"],
        ".*": [],
        "  ": [f"R-{n:03}" for n in range(12)],
    }.items():
        box.fill(words)
        assert visible_rows(page) == rows
        assert page.locator("#amr-count").inner_text() == f"{len(rows)} of 12 rows"


def test_rows_are_sorted_by_a_column_both_ways_and_missing_ones_stay_last(show, report):
    page = show(report(shown.KINDS["failures"]()))
    head = page.locator("#amr-rows thead th", has_text="severity")
    for order in ("ascending", "descending"):
        head.click()
        assert head.get_attribute("aria-sort") == order
        cells = page.locator("#amr-rows tbody tr td:nth-child(4)").all_inner_texts()
        numbers = [int(cell) for cell in cells if cell != "<NA>"]
        assert numbers == sorted(numbers, reverse=order == "descending")
        assert cells[-2:] == ["<NA>", "<NA>"]
    head = page.locator("#amr-rows thead th", has_text="review")
    head.press("Enter")
    assert visible_rows(page) == [f"R-{n:03}" for n in range(12)]


def test_a_report_forbids_all_scripts_but_its_own_and_all_requests(show, report):
    page = show(report(shown.KINDS["scalar"]()))
    page.evaluate("""() => {
        const add = (name, set) => document.body.append(Object.assign(document.createElement(name), set));
        add("script", { textContent: "window.hacked = true" });
        add("img", { src: "https://example.invalid/x.png" });
        add("iframe", { src: "https://example.invalid/" });
    }""")
    assert page.evaluate("window.hacked") is None
    page.wait_for_function("() => true")
    assert any("script" in problem for problem in show.problems)
    assert not any(problem.startswith("request") for problem in show.problems)
    show.problems.clear()


def test_hostile_cells_run_nothing_and_can_be_read_searched_and_sorted(show, look, report):
    page = show(report(shown.hostile()), look)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 1
    assert page.locator("img, iframe, form").count() == 0
    cells = page.locator("#amr-rows tbody td:nth-child(2)").all_inner_texts()
    for (_, left), cell in zip(shown.HOSTILE.values(), cells, strict=True):
        assert left in cell
    page.locator("#amr-search").fill("</script>")
    assert page.locator("#amr-count").inner_text() == "2 of 20 rows"
    page.locator("#amr-search").fill("")
    page.locator("#amr-rows thead th").first.click()
    assert page.evaluate("window.hacked") is None
    for answer_link in page.locator(".amr-answer a").all():
        assert answer_link.get_attribute("href").startswith("https://example.")
    heights = page.locator("#amr-rows tbody tr").evaluate_all("(rows) => rows.map((row) => row.offsetHeight)")
    assert max(heights) < 700


def test_a_report_prints_all_of_it_in_light_colours(show, report):
    page = show(report(shown.KINDS["text"]()), "dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("main").evaluate("(e) => getComputedStyle(e).color") == "rgb(31, 35, 40)"
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("#amr-search").is_visible()
    assert page.locator("#amr-rows .amr-scroll").evaluate("(e) => getComputedStyle(e).overflowY") == "visible"
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("columns", [4, 14, 30, 60])
def test_no_column_of_a_printed_report_lies_beyond_the_edge_of_its_paper(show, report, columns):
    """A4 has 718 of CSS's pixels between its margins, and on its side 1047."""
    page = show(report(wide(columns)))
    page.emulate_media(media="print")
    width = 718 if columns < 12 else 1047
    page.set_viewport_size({"width": width, "height": 600})
    table = page.locator("#amr-rows table")
    assert table.evaluate("(e) => e.getBoundingClientRect().right") <= width + 1
    assert page.locator("#amr-rows").evaluate("(e) => getComputedStyle(e).page") == (
        "auto" if columns < 12 else "amr-wide"
    )
    assert table.locator("thead th").last.inner_text() == "n"


def wide(columns):
    df = pd.DataFrame({f"column_{n}": ["some words of a cell"] * 3 for n in range(columns)})
    return df.amr.map_reduce(
        map=lambda shard: [{"n": 1}] * len(shard), finding={"n": int}, reduce={"n": "sum"}, progress=False
    )

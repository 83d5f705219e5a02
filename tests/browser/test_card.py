"""The card of a result, as a notebook shows it."""

import pandas as pd
import pytest

import shown

# What JupyterLab 4.6 says of all outputs, in its own selectors; one background is red, to be seen.
JUPYTER = """<style>
.jp-RenderedHTMLCommon { font-size: 14px; line-height: 1.6; padding-right: 20px; }
.jp-ThemedContainer .jp-RenderedHTMLCommon pre, .jp-ThemedContainer .jp-RenderedHTMLCommon code {
  border: 0; font-size: inherit; line-height: 1.3; padding: 0; white-space: pre-wrap; }
.jp-RenderedHTMLCommon table { border-collapse: collapse; table-layout: fixed; margin-left: auto; margin-right: auto; font-size: 12px; }
.jp-RenderedHTMLCommon td, .jp-RenderedHTMLCommon th, .jp-RenderedHTMLCommon tr {
  vertical-align: middle; padding: 0.5em; line-height: normal; white-space: normal; max-width: none; border: none; }
.jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) td, .jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) th,
.jp-RenderedHTMLCommon:not(.jp-RenderedMarkdown) tr { text-align: right; }
.jp-RenderedHTMLCommon tbody tr:nth-child(odd) { background: #f00; }
.jp-OutputArea-output pre { margin: 0; padding: 0; overflow: auto; word-break: break-all; white-space: pre-wrap; }
.jp-OutputArea-output dl, .jp-OutputArea-output dt, .jp-OutputArea-output dd { display: block; }
.jp-OutputArea-output dl { width: 100%; overflow: hidden; padding: 0; margin: 0; }
.jp-OutputArea-output dt { font-weight: bold; float: left; width: 20%; padding: 0; margin: 0; }
.jp-OutputArea-output dd { float: left; width: 80%; padding: 0; margin: 0; }
</style><div class="jp-ThemedContainer"><div class="jp-OutputArea-output jp-RenderedHTMLCommon">"""

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")


@pytest.mark.parametrize("kind", ["text", "objects", "failures", "reduce failed", "recipe"])
def test_a_card_is_quiet_and_fits_light_dark_and_narrow(show, look, kind):
    result = shown.KINDS[kind]()
    page = show(result._repr_html_(), look)
    assert page.locator(".amr").count() == 1
    parts = page.locator("details")
    assert parts.count() >= 2
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    show.check(page)  # all of it open
    assert page.locator('.amr-graph svg[role="img"]').is_visible()  # the picture, whose boxes are svg, too


def test_the_answer_stands_above_all_else_and_its_markdown_is_rendered(show):
    page = show(shown.KINDS["text"]()._repr_html_())
    assert page.locator(".amr-answer h2").inner_text() == "Fix the battery first"
    assert page.locator(".amr-answer strong").inner_text() == "battery"
    assert page.locator(".amr-answer td").all_inner_texts() == ["battery", "5", "strap", "4"]
    top, line, table = (
        page.locator(part).first.bounding_box()["y"] for part in (".amr-answer", ".amr-line", ".amr > .amr-scroll")
    )
    assert top < line < table


def test_texts_are_aligned_to_the_left_and_numbers_to_the_right_under_the_styles_of_jupyter_too(show, look):
    page = show(JUPYTER + shown.KINDS["scalar"]()._repr_html_(), look)
    align = "(cells) => cells.map((cell) => getComputedStyle(cell).textAlign)"
    rows = page.locator(".amr > .amr-scroll tbody tr")
    assert rows.count() == 5
    for number in range(5):
        assert rows.nth(number).locator("td").evaluate_all(align) == [
            "start",
            "start",
            "right",
            "start",
            "start",
            "right",
        ]
        colours = (
            rows.nth(number)
            .locator("td")
            .evaluate_all("(cells) => cells.map((e) => getComputedStyle(e).backgroundColor)")
        )
        assert set(colours) == {"rgb(21, 24, 29)" if look == "dark" else "rgb(255, 255, 255)"}


def test_names_and_values_of_a_transcript_stand_side_by_side_under_the_styles_of_jupyter_too(show, look):
    result = shown.run(reduce="What should we fix first?", trace="full")
    page = show(JUPYTER + result.look("R-001")._repr_html_(), look)
    names, values = page.locator(".amr-facts dt"), page.locator(".amr-facts dd")
    assert names.all_inner_texts() == ["status", "kind", "severity", "cost"]
    for number in range(3):
        name, value = names.nth(number).bounding_box(), values.nth(number).bounding_box()
        assert name["y"] == value["y"]
        assert name["x"] + name["width"] < value["x"]
        assert name["height"] == value["height"] < 30  # one line
    text = page.locator(".amr-step pre").first
    assert text.evaluate("(part) => getComputedStyle(part).padding") == "8px 10px"


def test_a_label_is_not_broken_in_two(show):
    days = [pd.Timestamp("2024-02-29"), pd.Timestamp("2024-03-01")]
    wide = pd.DataFrame({f"column {number}": ["a text of some words"] * 2 for number in range(16)}, index=days)
    page = show(
        wide.amr.map_reduce(
            map=lambda shard: [{"found": 1} for _ in range(len(shard))], reduce=len, journal=False
        )._repr_html_(),
        "narrow",
    )
    label = page.locator(".amr > .amr-scroll tbody th").first
    assert label.inner_text() == "2024-02-29"
    assert label.evaluate("(cell) => getComputedStyle(cell).whiteSpace") == "nowrap"


def test_a_long_name_of_a_column_of_numbers_is_not_cut_off(show, look):
    name = "number_" + "x" * 100
    rows = pd.DataFrame({"text": ["a", "b"]})
    found = rows.amr.map_reduce(map=lambda shard: [{name: 1} for _ in shard["text"]], reduce=len, journal=False)
    page = show(found._repr_html_(), look)
    head = page.locator(".amr > .amr-scroll thead th").nth(2)
    assert head.inner_text() == name
    assert head.evaluate("(cell) => cell.scrollWidth <= cell.clientWidth")
    assert head.evaluate("(cell) => getComputedStyle(cell).textAlign") == "right"


def test_hostile_cells_run_nothing_and_stand_in_their_own_cell(show, look):
    page = show(shown.hostile()._repr_html_(), look)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script, img, iframe").count() == 0
    assert "<script>window.hacked = true</script>" in page.locator(".amr-answer").inner_text()
    rows = page.locator(".amr > .amr-scroll tbody tr")
    assert rows.count() == 5
    assert rows.first.locator("td").first.inner_text() == "<script>window.hacked = true</script>"
    heights = rows.evaluate_all("(rows) => rows.map((row) => row.getBoundingClientRect().height)")
    assert max(heights) < 400


def test_two_cards_and_other_tables_of_a_notebook_leave_each_other_alone(show):
    one = shown.KINDS["scalar"]()._repr_html_()
    page = show(f"<table id='other'><tr><td>x</td></tr></table>{one}{one}")
    assert page.locator("#other td").evaluate("(cell) => getComputedStyle(cell).padding") == "1px"
    assert page.locator(".amr .amr").count() == 0

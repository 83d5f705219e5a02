"""What the other tests of pages rest on: a page that asks for something, complains or is too wide fails."""

import pytest

from pandas_amr._records import html


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ("<img src='https://example.invalid/x.png'>", "request: https://example.invalid/x.png"),
        ("<link rel='stylesheet' href='other.css'>", "request: file:"),
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<script>throw new Error('oh')</script>", "error: oh"),
    ],
)
def test_a_page_that_asks_for_something_or_complains_fails(show, page, problem):
    with pytest.raises(AssertionError):
        show(page)
    assert problem in "; ".join(show.problems)
    show.problems.clear()


def test_a_page_wider_than_the_window_fails(show):
    with pytest.raises(AssertionError, match="the page is 500 pixels wide, the window 375"):
        show("<body style='margin:0'><div style='width: 500px'>wide</div>", "narrow")


# Background and text of light and dark, as the browser computes them.
LIGHT, DARK = ("rgb(255, 255, 255)", "rgb(31, 35, 40)"), ("rgb(21, 24, 29)", "rgb(230, 232, 235)")


@pytest.mark.parametrize(
    ("look", "body", "colours"),
    [
        ("light", "", LIGHT),
        ("dark", "", DARK),
        ("light", 'data-jp-theme-light="false"', DARK),
        ("dark", 'data-jp-theme-light="true"', LIGHT),
        ("light", 'class="vscode-dark"', DARK),
        ("dark", 'class="vscode-light"', LIGHT),
        ("light", 'class="vscode-high-contrast"', DARK),
        ("dark", 'class="vscode-high-contrast-light vscode-high-contrast"', LIGHT),
        ("light", 'data-theme="dark"', DARK),
        ("dark", 'data-theme="light"', LIGHT),
    ],
)
def test_the_theme_of_the_notebook_goes_before_that_of_the_system(show, look, body, colours):
    page = show(html.root("text"), look, body=body)
    style = "(e) => { const s = getComputedStyle(e); return [s.backgroundColor, s.color] }"
    assert tuple(page.locator(".amr").evaluate(style)) == colours


def test_a_wide_table_scrolls_in_itself(show, look):
    header = [f"column {number}" for number in range(30)]
    page = show(html.root(html.table(header, [["a text " * 10] * 30, [1] * 30])), look)
    scroll = page.locator(".amr-scroll")
    assert scroll.evaluate("e => e.scrollWidth > e.clientWidth")

"""HTML of notebooks and reports: every text is escaped, one stylesheet serves light and dark.

``Html`` marks what is safe to show. ``element`` and ``table`` escape every plain text that they get
and leave ``Html`` as it is, so that a text of a row cannot become markup by mistake.
"""

from __future__ import annotations

import html
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pandas_amr._records.counts import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

CELL_CHARACTERS = 240
TEXT_CHARACTERS = 8_000
MARKDOWN_CHARACTERS = 50_000  # longer texts are shown as they are
LONG = 40  # characters of a cell
MOST_BITS = 1_000  # of an integer that is written out
SMALLEST, LARGEST = 1e-4, 1e15  # of the numbers that are written without an exponent
TARGETS = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)  # of the links that are links

# The flags of England, Scotland and Wales are made with letters that nobody sees.
FLAG = "\U0001f3f4[\U000e0061-\U000e007a]{3,6}\U000e007f"
# What is never shown as it is: control characters but for the line break and the tab, halves of
# characters (they cannot be written as UTF-8), characters that turn the text after them around,
# those that are none, and those that a browser shows nothing of but a model reads.
UNSHOWABLE = re.compile(
    f"({FLAG})|"
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028-\u202e\u2060-\u206f\ufdd0-\ufdef\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
CONTROL_PICTURES = 0x2400  # the symbol of control character n stands at this place plus n
DELETE = 0x7F


class Html(str):
    """HTML that is safe to show: each text in it is escaped."""

    __slots__ = ()


class Figure(str):
    """A number that is written already: a table aligns it to the right."""

    __slots__ = ()


# -- texts -----------------------------------------------------------------------------------------


def show_unprintable(text: str) -> str:
    r"""Replace what a browser would not show, or obey: by a symbol, or by its escape.

    Marks of direction, joiners and spaces without a width stay: Arabic, Hebrew and Khmer texts,
    and emoji, are made with them.

    Example:
        >>> print(show_unprintable("red \x1b[31m, back \u202e, half \ud800"))
        red ␛[31m, back \u202e, half \ud800
    """
    return UNSHOWABLE.sub(_show_character, text.replace("\r\n", "\n"))


def _show_character(match: re.Match[str]) -> str:
    if match.lastindex:  # a flag
        return match.group()
    code = ord(match.group())
    if code < ord(" "):
        return chr(CONTROL_PICTURES + code)
    if code == DELETE:
        return "␡"
    return match.group().encode("unicode_escape").decode()


def shorten(text: str, most: int) -> str:
    """Cut a text after ``most`` characters, and count those that are left out.

    Example:
        >>> shorten("a long text", 6)
        'a long ... 5 more characters'
    """
    rest = len(text) - most
    if rest <= 0:
        return text
    return f"{text[:most]} ... {counted(rest, 'more character')}"


def escape(text: str, most: int = TEXT_CHARACTERS) -> Html:
    """Escape a text for the content of an element, or for an attribute in double quotes.

    Example:
        >>> escape("<b>bold</b> & more", most=11)
        '&lt;b&gt;bold&lt;/b&gt; ... 7 more characters'
    """
    return Html(html.escape(show_unprintable(shorten(text, most))))


# -- elements --------------------------------------------------------------------------------------


def element(name: str, *content: str, **attributes: str | bool | None) -> Html:
    """Make an element; ``Html`` in it stays, every other text is escaped.

    Args:
        name: of the element.
        content: what stands in it, in order.
        attributes: ``class_`` is ``class``, other names have ``-`` for ``_``. True gives an
            attribute without a value; None and False give none.

    Example:
        >>> element("p", "1 < 2 ", element("b", "yes"), class_="amr-note")
        '<p class="amr-note">1 &lt; 2 <b>yes</b></p>'
    """
    shown = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        shown.append(attribute if value is True else f'{attribute}="{escape(str(value))}"')
    return Html(f"<{' '.join(shown)}>{join(content)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """Join what stands one after the other; ``Html`` stays, every other text is escaped."""
    return Html(_safe(between).join(map(_safe, parts)))


def _safe(text: str) -> Html:
    return text if isinstance(text, Html) else escape(text)


def text_block(text: str, most: int = TEXT_CHARACTERS) -> Html:
    """Show a text as it is, with its line breaks."""
    return element("pre", escape(text, most), class_="amr-text", dir="auto")


def details(summary: str, *content: str, is_open: bool = False) -> Html:
    """Make a part that opens when its summary is clicked."""
    return element("details", element("summary", summary), *content, open=is_open)


def link(text: str, target: str) -> Html:
    """Make a link to a web page or a mail address; of any other target only the text."""
    if not TARGETS.match(target):
        return _safe(text)
    return element("a", text, href=target, title=target, rel="noopener noreferrer nofollow")


# -- tables ----------------------------------------------------------------------------------------


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    most: int = CELL_CHARACTERS,
    row_headers: int = 0,
    **attributes: str | bool | None,
) -> Html:
    """Make a table that scrolls in itself if it is too wide.

    Args:
        header: the names of the columns; without any of them no header is shown.
        rows: their cells: ``Html`` stays; a text is escaped and cut; a number is aligned to the
            right; None is a missing value; of anything else its ``str``.
        most: characters per cell.
        row_headers: how many of a row's first cells name the row.
        attributes: of the table, as ``element`` takes them.
    """
    listed = [list(row) for row in rows]
    are_numeric = [_is_numeric(row[place] for row in listed) for place in range(len(header))]
    inside: list[Html] = []
    if any(header):
        inside.append(_table_head(header, are_numeric, most))
    body: list[Html] = []
    for row in listed:
        cells: list[Html] = []
        for place, value in enumerate(row):
            name = "th" if place < row_headers else "td"
            cells.append(_cell(value, most, name, is_numeric=are_numeric[place]))
        body.append(element("tr", *cells))
    inside.append(element("tbody", *body))
    whole = element("table", *inside, **attributes)
    return element("div", whole, class_="amr-scroll")


def named_values(rows: Iterable[tuple[str, object]], most: int = TEXT_CHARACTERS) -> Html:
    """Show names and their values, one below the other; each value as a cell of ``table``."""
    return table(("", ""), rows, most=most, row_headers=1, class_="amr-fields")


def _table_head(header: Sequence[str], are_numeric: Sequence[bool], most: int) -> Html:
    cells: list[Html] = []
    for name, is_numeric in zip(header, are_numeric, strict=True):
        classes = [_class_of(name), "amr-number" if is_numeric else None]
        class_ = " ".join(filter(None, classes)) or None
        cells.append(element("th", escape(name, most), scope="col", class_=class_, dir="auto"))
    return element("thead", element("tr", *cells))


def _is_numeric(values: Iterable[object]) -> bool:
    """Whether a column is one of numbers: all but the missing are."""
    shown = [value for value in values if value is not None]
    return bool(shown) and all(isinstance(value, Figure) or is_number(value) for value in shown)


def is_number(value: object) -> bool:
    """Whether a value is a number: a bool is not."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _cell(value: object, most: int, name: str, *, is_numeric: bool) -> Html:
    scope = "row" if name == "th" else None
    if value is None:
        missing = element("span", "<NA>", class_="amr-missing")
        return element(name, missing, scope=scope, class_="amr-number" if is_numeric else None)
    if isinstance(value, Html):
        return element(name, value, scope=scope)
    if isinstance(value, Figure):
        return element(name, value, scope=scope, class_="amr-number")
    if is_number(value):
        return element(name, format_number(value), scope=scope, class_="amr-number")
    text = str(value)
    return element(name, escape(text, most), scope=scope, class_=_class_of(text), dir="auto")


def _class_of(text: str) -> str | None:
    """Return the class of a cell; a long text is not squeezed into a column of one word."""
    return "amr-long" if len(text) > LONG else None


def format_number(value: Any, *, thousands: bool = False) -> str:
    """Write a number for people: at most six digits after the point.

    Args:
        value: the number.
        thousands: whether they are set apart: those of a count are, those of a year are not.

    Example:
        >>> format_number(1234567), format_number(0.5), format_number(1 / 3), format_number(2.0)
        ('1234567', '0.5', '0.333333', '2')
        >>> format_number(1234567, thousands=True)
        '1,234,567'
    """
    comma = "," if thousands else ""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"a number of about {int(value.bit_length() * math.log10(2)):,} digits"
    if isinstance(value, int):
        return f"{value:{comma}}"
    if isinstance(value, Decimal) or not math.isfinite(value):
        return str(value)
    if value and not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.6g}"
    return f"{value:{comma}.6f}".rstrip("0").rstrip(".")


# -- Markdown --------------------------------------------------------------------------------------


def markdown(text: str, most: int = TEXT_CHARACTERS) -> Html:
    """Render a text that may be Markdown, as models write it; a very long one as it is.

    HTML in it is shown as text, a picture is a link: nothing is fetched. A link leads to a web page
    or a mail address, or it is text.
    """
    if len(text) > MARKDOWN_CHARACTERS:  # no text of a model is so long, and it would take seconds
        return text_block(text, most)
    shown = show_unprintable(shorten(text, most))
    try:
        from markdown_it import MarkdownIt  # noqa: PLC0415 (only who shows a text needs it)
    except ImportError:  # installed without its requirements: what is shown never fails
        return text_block(text, most)
    parser = MarkdownIt("js-default", {"html": False, "breaks": True, "maxNesting": 20})
    parser.validateLink = _is_link  # type: ignore[method-assign, assignment]
    parser.add_render_rule("image", _render_image)
    parser.add_render_rule("link_open", _render_link)
    rendered = show_unprintable(parser.render(shown))  # entities may stand for what is not shown
    return Html(f'<div class="amr-markdown" dir="auto">{rendered}</div>')


def _is_link(target: str) -> bool:
    return TARGETS.match(target) is not None


def _render_image(renderer: Any, tokens: Sequence[Any], at: int, *rest: Any) -> str:
    del renderer, rest
    picture = tokens[at]
    return link(f"[picture: {picture.content or 'without a name'}]", str(picture.attrs["src"]))


def _render_link(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    del env
    target = str(tokens[at].attrs["href"])
    tokens[at].attrs.update({"rel": "noopener noreferrer nofollow", "title": target})
    opening: str = renderer.renderToken(tokens, at, options, None)
    return opening


# -- the stylesheet --------------------------------------------------------------------------------

LIGHT: Mapping[str, str] = {
    "text": "#1f2328",
    "muted": "#59636e",
    "back": "#ffffff",
    "raised": "#f6f8fa",
    "line": "#d1d9e0",
    "accent": "#0b5cad",
    "good": "#1a7f37",
    "warn": "#8a5a00",
    "bad": "#b3261e",
}
DARK: Mapping[str, str] = {
    "text": "#e6e8eb",
    "muted": "#9da7b3",
    "back": "#15181d",
    "raised": "#1e232a",
    "line": "#3a424c",
    "accent": "#7cb7ff",
    "good": "#5fd07a",
    "warn": "#e5b454",
    "bad": "#ff8f86",
}
# A notebook says which theme it shows, whatever the system prefers: JupyterLab, VS Code, Colab,
# then marimo and the sites that Sphinx builds.
LIGHT_THEMES = (
    '[data-jp-theme-light="true"] .amr, body.vscode-light .amr, '
    "body.vscode-high-contrast-light .amr, html[theme=light] .amr, [data-theme=light] .amr"
)
DARK_THEMES = (
    '[data-jp-theme-light="false"] .amr, body.vscode-dark .amr, '
    "body.vscode-high-contrast:not(.vscode-high-contrast-light) .amr, "
    "html[theme=dark] .amr, [data-theme=dark] .amr"
)


def _colours(scheme: str, colours: Mapping[str, str]) -> str:
    names = " ".join(f"--amr-{name}: {value};" for name, value in colours.items())
    return f"{{ color-scheme: {scheme}; {names} }}"


# What the page around says of the elements in it, as JupyterLab does of `td` and `dt`, is taken
# back first; but for pictures, whose attributes it would take back too.
RULES = """
.amr :where(:not(svg, svg *)) { all: revert; }
.amr { background: var(--amr-back); color: var(--amr-text); border: 1px solid var(--amr-line);
  border-radius: 6px; padding: 12px 16px; margin: 4px 0; max-width: 100%; box-sizing: border-box;
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  text-align: start; overflow-wrap: anywhere; }
.amr *, .amr *::before { box-sizing: border-box; }
.amr p { margin: 0 0 8px; }
.amr h1, .amr h2, .amr h3, .amr h4 { color: var(--amr-text); font-weight: 600; line-height: 1.3;
  margin: 14px 0 6px; }
.amr h1 { font-size: 20px; } .amr h2 { font-size: 17px; }
.amr h3, .amr h4 { font-size: 14px; }
.amr a { color: var(--amr-accent); }
.amr code, .amr pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace;
  font-size: 12.5px; color: inherit; background: var(--amr-raised); }
.amr code { padding: 1px 4px; border-radius: 3px; } .amr pre code { padding: 0; }
.amr pre { padding: 8px 10px; margin: 0 0 8px; border-radius: 4px; overflow-x: auto; }
.amr pre.amr-text { white-space: pre-wrap; }
.amr .amr-scroll { overflow-x: auto; max-width: 100%; margin: 0 0 8px; }
.amr table { border-collapse: collapse; border: 0; margin: 0; width: auto; table-layout: auto;
  font-size: 13px; color: inherit; }
.amr table th, .amr table td { background: var(--amr-back); color: inherit; border: 0;
  border-bottom: 1px solid var(--amr-line); padding: 4px 12px 4px 8px; text-align: start;
  vertical-align: top; max-width: 32em; min-width: 3em; white-space: normal; overflow: hidden;
  overflow-wrap: break-word; }
.amr table td.amr-long, .amr table th.amr-long { min-width: 16em; }
.amr table td { white-space: pre-wrap; }
.amr table.amr-fields tbody th { color: var(--amr-muted); font-weight: 400; }
.amr table td > :last-child { margin-bottom: 0; }
.amr table table tr:last-child > th, .amr table table tr:last-child > td { border-bottom: 0; }
.amr table th:empty, .amr table td:empty { min-width: 0; }
.amr table th { font-weight: 600; white-space: nowrap; }
.amr table thead th { background: var(--amr-raised); }
.amr table th.amr-number, .amr table td.amr-number { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.amr table th.amr-long { white-space: normal; }
.amr .amr-scalar { font-size: 32px; line-height: 1.25; font-weight: 600; margin: 0 0 8px; }
.amr .amr-muted, .amr .amr-missing { color: var(--amr-muted); }
.amr .amr-good { color: var(--amr-good); } .amr .amr-warn { color: var(--amr-warn); }
.amr .amr-bad { color: var(--amr-bad); }
.amr details { margin: 0 0 6px; }
.amr summary { cursor: pointer; color: var(--amr-accent); display: list-item; }
.amr details[open] > summary { margin-bottom: 6px; }
.amr blockquote { margin: 0 0 8px; padding: 0 12px; border-left: 3px solid var(--amr-line);
  color: var(--amr-muted); }
.amr ul, .amr ol { margin: 0 0 8px; padding-inline-start: 24px; }
.amr .amr-markdown > :first-child { margin-top: 0; }
.amr .amr-markdown table { display: block; overflow-x: auto; max-width: 100%; margin: 0 0 8px; }
.amr svg { max-width: none; }
"""
STYLESHEET = (
    f".amr {_colours('light', LIGHT)}\n"
    f"@media (prefers-color-scheme: dark) {{ .amr {_colours('dark', DARK)} }}\n"
    f"{LIGHT_THEMES} {_colours('light', LIGHT)}\n"
    f"{DARK_THEMES} {_colours('dark', DARK)}"
    f"{RULES}"
)
ROOT_SELECTOR = re.compile(r"\.amr(?![\w-])")


def style(more_rules: str = "") -> Html:
    """Make the stylesheet; its rules weigh more than any of the page around.

    Args:
        more_rules: CSS of this page alone, each selector of an element in it begins with ``.amr``.
    """
    rules = ROOT_SELECTOR.sub(".amr:not(#_)", STYLESHEET + more_rules)  # as much as an id
    return Html(f"<style>{rules}</style>")


def root(*content: str, more_rules: str = "", **attributes: str | bool | None) -> str:
    """Make the outermost element, with the stylesheet: what a ``_repr_html_`` returns.

    It is a plain ``str``: the encoders of front ends, as that of marimo, may know no other.

    Args:
        content: what stands in it.
        more_rules: as ``style`` takes them.
        attributes: of the element, as ``element`` takes them; ``class_`` is added to ``amr``.
    """
    more = attributes.pop("class_", None)
    classes = f"amr {more}" if more else "amr"
    return str(element("div", style(more_rules), *content, class_=classes, **attributes))

"""Draw the pictures of the concepts: `python scripts/draw_pictures.py` writes docs/pictures/*.svg.

Each is a file of its own that follows the reader's light or dark system. The site shows it inline
(`docs_hooks.py`), with the rules of docs/pictures/pictures.css, so that it follows
the site's own switch.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
WIDTH = 620
LIGHT = """\
.amr-picture { --ink: #1f2933; --soft: #52606d; --edge: #7b8794; --fill: #f2f5f7;
  --main: #00796b; --mild: #d5efeb; --bad: #b3261e; --pale: #fbe4e1;
  font: 16px system-ui, sans-serif; }
"""
DARK = """\
.amr-picture { --ink: #e4e7eb; --soft: #b3bcc7; --edge: #8d99a6; --fill: #2a3038;
  --main: #5ed0bf; --mild: #12453f; --bad: #ff9a8f; --pale: #54231f; }
"""
RULES = """\
.amr-picture text { fill: var(--ink); }
.amr-picture text.soft { fill: var(--soft); font-size: 14px; }
.amr-picture text.code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.amr-picture text.main { fill: var(--main); font-weight: 600; }
.amr-picture text.bad { fill: var(--bad); font-weight: 600; }
.amr-picture rect { fill: var(--fill); stroke: var(--edge); stroke-width: 1.5; }
.amr-picture rect.mild { fill: var(--mild); stroke: var(--main); }
.amr-picture rect.pale { fill: var(--pale); stroke: var(--bad); }
.amr-picture rect.open { fill: none; stroke-dasharray: 6 4; }
.amr-picture path { fill: none; stroke: var(--edge); stroke-width: 2; }
.amr-picture path.main { stroke: var(--main); }
.amr-picture path.bad { stroke: var(--bad); stroke-dasharray: 5 4; }
.amr-picture path.tip { fill: var(--edge); stroke: none; }
.amr-picture path.tip.main { fill: var(--main); }
.amr-picture path.tip.bad { fill: var(--bad); }
"""
FILE_STYLE = f"{LIGHT}@media (prefers-color-scheme: dark) {{\n{DARK}}}\n{RULES}"
SITE_STYLE = f'{LIGHT}[data-md-color-scheme="slate"] {DARK}{RULES}'
TIP = 9


class Picture:
    """A drawing of boxes, words and arrows."""

    def __init__(self, title: str, height: int) -> None:
        self.title = title
        self.height = height
        self.parts: list[str] = []

    def write(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> None:
        """Write a line of text; ``y`` is its baseline."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *lines: str,
        kind: str = "",
        text: str = "",
    ) -> None:
        """Draw a box with lines of text in its middle."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width}" height="{height}" rx="5" class="{kind}"/>'
        )
        first = y + height / 2 + 5.5 - 10 * (len(lines) - 1)
        for number, line in enumerate(lines):
            self.write(x + width / 2, first + 20 * number, line, text, "middle")

    def arrow(self, *points: tuple[float, float], kind: str = "") -> None:
        """Draw a line with a tip at its last point; its last part is upright or level."""
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        base_x, base_y = x1 - dx * TIP, y1 - dy * TIP
        line = "L".join(f"{x:g} {y:g}" for x, y in (*points[:-1], (base_x, base_y)))
        self.parts.append(f'<path d="M{line}" class="{kind}"/>')
        wide_x, wide_y = dy * TIP / 2, dx * TIP / 2
        left, right = (base_x + wide_x, base_y + wide_y), (base_x - wide_x, base_y - wide_y)
        corners = "L".join(f"{x:g} {y:g}" for x, y in ((x1, y1), left, right))
        self.parts.append(f'<path d="M{corners}Z" class="tip {kind}"/>')

    def svg(self) -> str:
        """Give the picture as a file."""
        size = f'viewBox="0 0 {WIDTH} {self.height}"'
        begin = f'<svg xmlns="http://www.w3.org/2000/svg" {size} class="amr-picture" role="img">'
        return "\n".join(
            [
                begin,
                f"<title>{escape(self.title)}</title>",
                f"<style>\n{FILE_STYLE}</style>",
                *self.parts,
                "</svg>\n",
            ]
        )


def draw_units() -> Picture:
    """A frame on the left, its units on the right."""
    picture = Picture(
        "Each row is a unit: the content columns are read; equal rows are one, empty ones none", 268
    )
    picture.write(20, 26, "the frame", "soft")
    picture.write(400, 26, "what is asked", "soft")
    columns = ((20, 60, "index"), (80, 70, "shop"), (150, 170, "review"))
    rows = (
        ("a", "north", "The strap broke."),
        ("b", "south", "It is fine."),
        ("c", "north", "The strap broke."),
        ("d", "south", "<NA>"),
    )
    for x, width, name in columns:
        picture.box(
            x,
            38,
            width,
            32,
            name,
            kind="mild" if name == "review" else "",
            text="main" if name == "review" else "soft",
        )
    for line, cells in enumerate(rows):
        for (x, width, name), cell in zip(columns, cells, strict=True):
            picture.box(x, 70 + 38 * line, width, 38, cell, kind="mild" if name == "review" else "")
    picture.box(400, 70, 200, 38, "unit 0: rows a and c", kind="mild")
    picture.box(400, 117, 200, 38, "unit 1: row b", kind="mild")
    picture.box(400, 184, 200, 38, "row d: empty, not asked", kind="open", text="soft")
    picture.arrow((322, 89), (396, 89), kind="main")
    picture.arrow((322, 165), (358, 165), (358, 97), (396, 97), kind="main")
    picture.arrow((322, 127), (396, 127), kind="main")
    picture.arrow((322, 203), (396, 203))
    picture.write(235, 250, 'columns=["review"]', "code", "middle")
    return picture


def draw_shards() -> Picture:
    """Units, cut into shards, each to an agent; one that fails is halved."""
    picture = Picture(
        "Units are cut into shards; each goes to an agent; one that fails is halved", 330
    )
    picture.write(20, 26, "units", "soft")
    picture.write(150, 26, "shards", "soft")
    picture.write(310, 26, "agents, at once", "soft")
    for number in range(9):
        picture.box(20, 40 + 30 * number, 60, 30, str(number))
    for shard, (first, last) in enumerate(((0, 2), (3, 5), (6, 8))):
        top = 40 + 90 * shard
        picture.arrow((84, top + 45), (146, top + 45))
        picture.box(150, top + 12, 100, 66, f"{first} to {last}", kind="mild")
        picture.arrow((254, top + 45), (306, top + 45))
    picture.box(310, 52, 130, 66, "3 findings")
    picture.box(310, 142, 130, 66, "3 is found,", "4 and 5 are not", kind="pale")
    picture.box(310, 232, 130, 66, "3 findings")
    picture.box(490, 134, 110, 36, "4: failed", kind="pale", text="bad")
    picture.box(490, 180, 110, 36, "5: a finding", kind="mild")
    picture.arrow((444, 175), (466, 175), (466, 152), (486, 152))
    picture.arrow((444, 175), (466, 175), (466, 198), (486, 198))
    picture.write(545, 120, "halved until alone", "soft", "middle")
    return picture


def draw_findings() -> Picture:
    """An answer, its check, the columns."""
    picture = Picture(
        "A model's answer is checked against the schema, and becomes columns on the right rows", 330
    )
    picture.write(20, 26, "what the model answers", "soft")
    for line, (unit, kind, severity) in enumerate(
        (("0", '"strap"', "4"), ("1", '"other"', "1"), ("2", '"lid"', '"high"'))
    ):
        picture.box(
            20,
            40 + 38 * line,
            380,
            38,
            f'{{"unit": {unit}, "kind": {kind}, "severity": {severity}}}',
            text="code",
        )
    picture.arrow((195, 158), (195, 186))
    picture.box(20, 190, 380, 40, "checked: kind is a choice, severity an int", kind="mild")
    picture.arrow((404, 210), (456, 210), kind="bad")
    picture.box(460, 180, 140, 60, "unit 2 is asked", "once more", kind="pale")
    picture.arrow((530, 176), (530, 97), (404, 97), kind="bad")
    picture.arrow((195, 234), (195, 258), kind="main")
    columns = ((20, 70, "index"), (90, 160, "review"), (250, 90, "kind"), (340, 90, "severity"))
    for x, width, name in columns:
        new = name in {"kind", "severity"}
        picture.box(
            x, 262, width, 28, name, kind="mild" if new else "", text="main" if new else "soft"
        )
    for (x, width, name), cell in zip(
        columns, ("a", "The strap broke.", "strap", "4"), strict=True
    ):
        picture.box(x, 290, width, 30, cell, kind="mild" if name in {"kind", "severity"} else "")
    picture.write(444, 298, "joined by position", "soft")
    return picture


def draw_trees() -> Picture:
    """Two ways from findings to an answer."""
    picture = Picture(
        "Numbers are computed by pandas; texts are written by agents in a tree, with their rows",
        350,
    )
    picture.write(20, 26, "a number: computed", "soft")
    picture.write(230, 26, "a text: written in a tree", "soft")
    picture.box(20, 40, 150, 44, "severity.mean()", kind="mild", text="code")
    picture.arrow((95, 274), (95, 88), kind="main")
    picture.write(105, 180, "pandas", "soft")
    picture.box(20, 278, 150, 44, "the column", kind="")
    picture.box(325, 40, 160, 44, "the answer", kind="mild", text="main")
    for number in range(3):
        left = 230 + 125 * number
        picture.box(left, 154, 100, 44, "reducer")
        for finding in range(3):
            x = left + 36 * finding
            picture.box(x, 286, 28, 28, str(3 * number + finding))
        picture.arrow((left + 50, 282), (left + 50, 202))
        picture.write(left + 58, 248, f"rows {3 * number} to {3 * number + 2}", "soft")
    picture.arrow((280, 150), (280, 118), (375, 118), (375, 88))
    picture.arrow((405, 150), (405, 88))
    picture.arrow((530, 150), (530, 118), (435, 118), (435, 88))
    picture.write(496, 58, "sources:", "soft")
    picture.write(496, 78, "rows 0, 4, 7", "soft")
    picture.write(230, 338, "findings", "soft")
    return picture


def draw_journal() -> Picture:
    """A unit is looked up before it is asked; what is found is written before it counts."""
    picture = Picture(
        "A unit is looked up before it is asked; its finding is written before it counts",
        290,
    )
    picture.box(20, 40, 160, 60, "a unit, and what", "is asked of it")
    picture.arrow((184, 70), (236, 70))
    picture.box(240, 40, 140, 60, "fingerprint", "of both")
    picture.arrow((384, 70), (436, 70))
    picture.box(440, 40, 160, 60, "the journal:", "is it known?", kind="mild")
    picture.arrow((520, 104), (520, 226), kind="main")
    picture.write(530, 170, "yes: free", "main")
    picture.box(440, 230, 160, 44, "the finding", kind="mild")
    picture.arrow((480, 104), (480, 140), (100, 140), (100, 166))
    picture.write(290, 132, "no", "soft", "middle")
    picture.box(20, 170, 172, 44, "the model is asked")
    picture.arrow((196, 192), (236, 192))
    picture.box(240, 170, 140, 44, "written first", kind="mild", text="main")
    picture.arrow((310, 218), (310, 252), (436, 252))
    picture.write(316, 272, "then it counts", "soft")
    return picture


def draw_sandbox() -> Picture:
    """What a session holds, what it may say, and what it cannot reach."""
    picture = Picture(
        "Hostile text of a row becomes code; it reaches its shard and one pipe alone",
        350,
    )
    picture.box(20, 40, 140, 60, "text of a row", "(hostile)", kind="pale")
    picture.arrow((164, 70), (206, 70), kind="bad")
    picture.box(210, 40, 130, 60, "the model", "believes it")
    picture.arrow((344, 70), (386, 70), kind="bad")
    picture.box(390, 40, 210, 60, "and writes code", kind="pale")
    picture.arrow((495, 104), (495, 166), kind="bad")
    picture.box(20, 140, 250, 190, kind="open")
    picture.write(34, 164, "your process", "soft")
    picture.box(34, 176, 100, 36, "keys")
    picture.box(146, 176, 110, 36, "journal")
    picture.box(34, 224, 100, 36, "files")
    picture.box(146, 224, 110, 36, "network")
    picture.box(30, 278, 228, 38, "all messages are checked", kind="mild")
    picture.box(380, 140, 220, 190, kind="open")
    picture.write(394, 164, "session", "soft")
    picture.box(394, 170, 192, 40, "the code runs here", kind="pale")
    picture.box(394, 222, 90, 36, "df", text="code")
    picture.box(496, 222, 90, 36, "scratch")
    picture.box(394, 278, 192, 38, "submit, ask", text="code", kind="mild")
    picture.arrow((390, 291), (260, 291), kind="main")
    picture.arrow((260, 305), (390, 305), kind="main")
    picture.write(325, 280, "one pipe", "soft", "middle")
    picture.arrow((390, 190), (300, 190), kind="bad")
    picture.write(288, 196, "x", "bad", "middle")
    picture.arrow((390, 240), (300, 240), kind="bad")
    picture.write(288, 246, "x", "bad", "middle")
    return picture


PICTURES = {
    "units": draw_units,
    "shards": draw_shards,
    "findings": draw_findings,
    "trees": draw_trees,
    "journal": draw_journal,
    "sandbox": draw_sandbox,
}


def main() -> None:
    """Write the pictures."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
    (folder / "pictures.css").write_text(SITE_STYLE, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Check that no page of a built site asks anything of a network: `check_site.py build/docs`.

Two ways: what pages and style sheets name is read; and, if Chromium is there, some pages are shown
in it, without a network, under a policy by which the browser reports whatever a page asks of
another host. (What the browser asks for itself is none of that.) A page that does ask is shown
first: if that one is not reported, the check fails.
"""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

LOADING = {  # tags and the attributes by which a page loads what it names
    "script": ("src",),
    "link": ("href",),
    "img": ("src", "srcset"),
    "source": ("src", "srcset"),
    "iframe": ("src", "srcdoc"),
    "video": ("src", "poster"),
    "audio": ("src",),
    "track": ("src",),
    "embed": ("src",),
    "object": ("data",),
    "input": ("src",),
    "use": ("href", "xlink:href"),
    "image": ("href", "xlink:href"),
    "form": ("action",),
    "base": ("href",),
    "body": ("background",),
}
NAMES_ONLY = {"canonical", "author", "license", "next", "prev"}  # links that load nothing
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
STYLE_URL = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')]+)", re.IGNORECASE)
# What the theme's script asks for only on pages that have such a part; no page here may have one.
PARTS = (
    'class="mermaid"',
    'data-md-component="source"',
    'data-md-component="consent"',
    "twemoji.maxcdn",
    "mathjax",
)
SHOWN = (
    "index.html",
    "guide/cost.html",
    "concepts/trees.html",
    "reference/verbs.html",
    "errors.html",
    "notebooks/first-look.html",
    "404.html",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; report-uri /report"
CONTROL = "control-page.html"
CONTROL_PAGE = b"""<article></article><img src=http://elsewhere.test/x.png>
<script>fetch('http://elsewhere.test/y')</script>"""
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--virtual-time-budget=3000",
    "--dump-dom",
)


class LoadedNames(HTMLParser):
    """What a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names."""
        values = {name: value or "" for name, value in attrs}
        self.elsewhere += STYLE_URL.findall(values.get("style", ""))
        if tag == "link" and values.get("rel", "") in NAMES_ONLY:
            return
        if (
            tag == "meta"
            and values.get("http-equiv", "").lower() == "refresh"
            and "//" in values.get("content", "")
        ):
            self.elsewhere.append(values["content"])
        for name in LOADING.get(tag, ()):
            if ELSEWHERE.match(values.get(name, "")):
                self.elsewhere.append(f"<{tag} {name}={values[name]}>")


class Site(http.server.SimpleHTTPRequestHandler):
    """A server of the site's files, and of one page that asks for more; it notes reports."""

    def __init__(self, *args: Any, site: Path, reported: list[str], asked: list[str]) -> None:
        self.reported = reported
        self.asked = asked
        super().__init__(*args, directory=str(site))

    def end_headers(self) -> None:
        """Ask for reports."""
        self.send_header("Content-Security-Policy-Report-Only", POLICY)
        super().end_headers()

    def do_GET(self) -> None:
        """Give a file."""
        self.asked.append(self.path)
        if self.path != f"/{CONTROL}":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(CONTROL_PAGE)

    def do_POST(self) -> None:
        """Note a report."""
        report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["csp-report"]
        self.reported.append(f"{urlsplit(report['document-uri']).path}: {report['blocked-uri']}")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def read_names(site: Path) -> list[str]:
    """List what pages and style sheets load from elsewhere, each with its file."""
    found = []
    for page in sorted(site.rglob("*.html")):
        text = page.read_text(encoding="utf-8")
        names = LoadedNames()
        names.feed(text)
        styles = "".join(re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL))
        parts = [part for part in PARTS if part in text]
        found += [
            f"{page.relative_to(site)}: {name}"
            for name in (*names.elsewhere, *STYLE_URL.findall(styles), *parts)
        ]
    for sheet in sorted(site.rglob("*.css")):
        found += [
            f"{sheet.relative_to(site)}: {name}"
            for name in STYLE_URL.findall(sheet.read_text(encoding="utf-8"))
        ]
    return found


def check_assistants_page(site: Path) -> list[str]:
    """List the links of llms.txt that lead nowhere."""
    text = (site / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+:)([^)#]+)", text)
    return [f"llms.txt: {link} is not there" for link in links if not (site / link).exists()]


def show_pages(site: Path, browser: str) -> list[str]:
    """Show pages in a browser; list what they ask of other hosts."""
    reported: list[str] = []
    asked: list[str] = []
    handler = partial(Site, site=site, reported=reported, asked=asked)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        tempfile.TemporaryDirectory() as profile,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        begin = [browser, *QUIET, f"--user-data-dir={profile}"]
        for page in (CONTROL, *SHOWN):
            address = f"http://127.0.0.1:{server.server_port}/{page}"
            shown = subprocess.run(  # noqa: S603 (Chromium, and a page of this site)
                [*begin, address], capture_output=True, text=True, timeout=120, check=True
            )
            if "<article" not in shown.stdout:
                reported.append(f"{page} was not shown")
        server.shutdown()
    of_control = [line for line in reported if CONTROL in line]
    others = [line for line in reported if CONTROL not in line]
    if len(of_control) < 2:
        others.append(
            f"of the 2 requests of the page that asks for more, {len(of_control)} are reported"
        )
    if not any(path.endswith(".js") for path in asked):
        others.append("no script of the site was asked for: the pages were not really shown")
    return others


def main() -> int:
    """Check a site; print what is wrong with it."""
    site = Path(sys.argv[1])
    wrong = read_names(site) + check_assistants_page(site)
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("Chromium is not here: pages were read and not shown.")
    else:
        wrong += show_pages(site, browser)
    for line in wrong:
        print(line)
    pages = len(list(site.rglob("*.html")))
    print(f"{pages} pages: {len(wrong)} problems.")
    return 1 if wrong or not pages else 0


if __name__ == "__main__":
    sys.exit(main())

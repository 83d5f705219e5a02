"""Find the files that a pattern names, and the folders on the way that cannot be listed."""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAGIC = re.compile(r"[*?\[]")
GLOB_TOKEN = re.compile(r"\*\*/|\*\*|\[.[^\]]*\]|.", re.DOTALL)
WILDCARDS = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


@dataclass(slots=True)
class FoundFiles:
    """The files that patterns name.

    Attributes:
        paths: the files; the same file may stand here several times.
        closed: folders that cannot be listed, each with the reason.
    """

    paths: list[Path] = field(default_factory=list)
    closed: dict[Path, str] = field(default_factory=dict)

    def add_closed(self, error: OSError) -> None:
        """Note a folder that the operating system does not list."""
        reason = f"a folder that cannot be listed: {error.strerror}"
        self.closed[Path(error.filename)] = reason


def find_files(patterns: Iterable[str]) -> FoundFiles:
    """Find the files that any of some patterns names. Links to folders are not followed.

    Raises:
        UsageError: a pattern starts in a folder that does not exist, is empty, or is an address.
    """
    found = FoundFiles()
    for given in patterns:
        if not given:
            raise UsageError("'' is not a path; for the working folder: '.'.")
        if "://" in given:
            raise UsageError(f"{given!r} is not a path of this machine.")
        pattern = os.path.expanduser(given)  # noqa: PTH111 (a Path would raise for no user's home)
        if not _is_folder(pattern) and os.path.lexists(pattern):
            found.paths.append(Path(pattern))
            continue
        base, parts = _split_pattern(pattern)
        if len(parts) > 1 and not MAGIC.search(parts[0]):
            _explain_missing_folder(base / parts[0], found)
        else:
            _walk(base, parts, found)
    return found


def _is_folder(path: str | Path) -> bool:
    # Path.is_dir raises if a folder on the way cannot be entered.
    return os.path.isdir(path)  # noqa: PTH112


def _split_pattern(pattern: str) -> tuple[Path, tuple[str, ...]]:
    """Split a path into its longest beginning that is a folder, and the pattern below it."""
    if _is_folder(Path(pattern)):
        return Path(pattern), ("**", "*")
    parts = Path(pattern).parts
    depth = 0
    while depth + 1 < len(parts) and _is_folder(Path(*parts[: depth + 1])):
        depth += 1
    base = Path(*parts[:depth])
    return base, parts[depth:]


def _explain_missing_folder(folder: Path, found: FoundFiles) -> None:
    """Note a folder that cannot be looked up.

    Raises:
        UsageError: it does not exist.
    """
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        found.add_closed(error)
        return
    raise UsageError(f"There is no folder {str(folder)!r}.")


def _walk(base: Path, parts: tuple[str, ...], found: FoundFiles) -> None:
    """Add the files below a folder whose paths match a pattern."""
    whole = compile_glob("/".join(parts))
    by_depth = [None if "**" in part else compile_glob(part) for part in parts]
    for folder, subfolders, names in os.walk(base, followlinks=False, onerror=found.add_closed):
        inside = Path(folder).relative_to(base)
        entered: list[str] = []
        for name in subfolders:
            if _may_contain_matches((*inside.parts, name), by_depth):
                entered.append(name)
        subfolders[:] = entered  # os.walk enters those that are left
        for name in names:
            path = inside / name
            if whole.fullmatch(path.as_posix()):
                found.paths.append(Path(folder, name))


def _may_contain_matches(folder: tuple[str, ...], by_depth: list[re.Pattern[str] | None]) -> bool:
    """Whether a file below a folder can match; None in ``by_depth`` is any number of folders."""
    for name, part in zip(folder, by_depth, strict=False):
        if part is None:
            return True
        if not part.fullmatch(name):
            return False
    return len(folder) < len(by_depth)


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob: ``**/`` is any number of folders; only ``**`` crosses folders.

    Python 3.11's standard library matches ``**`` only while it walks, and its walk neither reports
    the folders that it cannot list nor leaves out links.

    Example:
        >>> bool(compile_glob("src/**/*.py").fullmatch("src/a/b.py"))
        True
    """
    try:
        return re.compile(GLOB_TOKEN.sub(_translate_token, pattern))
    except re.error as error:
        raise UsageError(f"The pattern {pattern!r} cannot be used: {error}.") from None


def _translate_token(match: re.Match[str]) -> str:
    """Translate a wildcard, a set in brackets or a character into a regular expression."""
    token = match.group()
    if token in WILDCARDS:
        return WILDCARDS[token]
    if len(token) == 1:
        return re.escape(token)
    characters = token[1:-1].replace("\\", r"\\")
    if characters.startswith("!"):
        characters = f"^{characters[1:]}"
    return f"[{characters}]"


def show_path(path: Path) -> str:
    """Write a path as text that any column can hold: bytes that are not UTF-8 in hexadecimal."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def order_files(paths: Iterable[Path]) -> list[Path]:
    """Sort files by path. Of a file and the links to it, only the file stays, or the first link."""
    resolve_folder = functools.cache(os.path.realpath)
    ordered = sorted(dict.fromkeys(paths), key=show_path)
    first: dict[str, Path] = {}
    # Files before links. Path.is_link raises if a folder on the way is closed; os.path does not.
    files_first = sorted(ordered, key=os.path.islink)
    for path in files_first:
        if not os.path.islink(path):  # noqa: PTH114
            target = f"{resolve_folder(path.parent)}/{path.name}"
        elif os.path.exists(path):  # noqa: PTH110
            target = os.path.realpath(path)
        else:
            target = str(path)
        first.setdefault(target, path)
    chosen = set(first.values())
    return [path for path in ordered if path in chosen]

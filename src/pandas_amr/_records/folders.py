"""A folder that is written whole or not at all, in the place of one that may be replaced."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pandas_amr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AT_FDCWD = -100
RENAME_EXCHANGE = 2


def check_folder(given: str | os.PathLike[str], is_own: Callable[[Path], bool]) -> Path:
    """Find the folder that may be written at a path, links resolved; an empty one, or one that ``is_own``, is replaced.

    Raises:
        UsageError: something else is there, or the folder can have no other in its place.
    """
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"save() takes the path of a folder, not {type(given).__name__}.")
    try:
        folder = Path(given).resolve()
    except (OSError, RuntimeError):  # links in a circle
        raise UsageError(
            f"{given} cannot be saved to: its links lead nowhere. Name another folder."
        ) from None
    above = next(parent for parent in folder.parents if os.path.lexists(parent))
    if not above.is_dir():
        raise UsageError(f"{given} cannot be saved to: {above} is a file. Name another folder.")
    if not os.path.lexists(folder):
        return folder
    if not folder.is_dir():
        raise UsageError(
            f"{given} is a file. Name a folder: one that is not there yet, or a result's."
        )
    if Path.cwd().is_relative_to(folder) or os.path.ismount(folder):
        raise UsageError(f"{given} cannot be replaced: it is in use. Name a folder inside of it.")
    if any(folder.iterdir()) and not is_own(folder):
        raise UsageError(
            f"{given} is not empty and holds what save() did not write, which it will not delete. "
            "Name a new folder, or empty this one first."
        )
    return folder


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, by their paths inside it, as a folder: beside it first, then renamed into its place.

    Whatever ends it early leaves what was there before, or all of what is new.
    """
    made = [parent for parent in folder.parents if not parent.exists()]
    beside = folder.with_name(f".{secrets.token_hex(8)}.saving")
    try:
        beside.mkdir(parents=True)
        for name, data in files.items():
            _write(beside / name, data)
        if folder.exists():
            shutil.copymode(folder, beside)
        _put(beside, folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    if beside.exists():  # the old one, by now
        shutil.rmtree(beside)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _put(new: Path, folder: Path) -> None:
    """Rename a folder into the place of another, which is then at ``new``, or gone if it was empty."""
    if not folder.exists():
        new.rename(folder)
    elif not any(folder.iterdir()):
        folder.rmdir()
        new.rename(folder)
    elif not _exchange(new, folder):
        old = new.with_suffix(".replaced")
        folder.rename(old)
        try:
            new.rename(folder)
        except BaseException:
            old.rename(folder)
            raise
        old.rename(new)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, which Linux can; False where it cannot be done so."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    done: int = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return done == 0

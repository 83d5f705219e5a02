"""Folders and files that are written as a whole or not at all; they may replace others."""

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


def check_folder(path: str | os.PathLike[str], is_own: Callable[[Path], bool]) -> Path:
    """Resolve a path to the folder that may be written there.

    Args:
        path: the path; links are followed.
        is_own: tells whether a folder was written by ``save()``. Such a folder may be replaced, and
            so may an empty one.

    Raises:
        UsageError: something else is there, or the folder cannot be replaced.
    """
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"save() takes the path of a folder, not {type(path).__name__}.")
    folder = _resolve(path)
    if not os.path.lexists(folder):
        _check_parents(path, folder)
        return folder
    if not folder.is_dir():
        raise UsageError(f"{path} is a file. Name a new folder, or one that save() wrote.")
    if Path.cwd().is_relative_to(folder) or os.path.ismount(folder):
        raise UsageError(f"{path} cannot be replaced: it is in use. Name a folder inside of it.")
    if any(folder.iterdir()) and not is_own(folder):
        raise UsageError(
            f"{path} is not empty: it holds files that save() did not write and will not delete. "
            "Name a new folder, or empty this one first."
        )
    return folder


def _resolve(path: str | os.PathLike[str]) -> Path:
    folder: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):
        folder = Path(path).resolve()
    if folder is None or folder.is_symlink():  # links in a circle: Python 3.13 lets them be
        raise UsageError(f"{path} cannot be saved to: its links lead nowhere. Name another folder.")
    return folder


def _check_parents(path: str | os.PathLike[str], folder: Path) -> None:
    for parent in folder.parents:
        if not os.path.lexists(parent):
            continue
        if not parent.is_dir():
            raise UsageError(f"{path} cannot be saved to: {parent} is a file. Name another folder.")
        return


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files as a folder, in the place of the one that is there.

    The files are written to a folder beside it, which is then renamed. If this is interrupted, the
    old folder is there, or the whole new one.

    Args:
        folder: where the files go.
        files: their contents, by path inside the folder.
    """
    new_parents = [parent for parent in folder.parents if not parent.exists()]
    temporary = folder.with_name(f".{secrets.token_hex(8)}.saving")
    try:
        temporary.mkdir(parents=True)
        for name, data in files.items():
            path = temporary / name
            path.parent.mkdir(exist_ok=True)
            _write(path, data)
        if folder.exists():
            shutil.copymode(folder, temporary)
        _move_into_place(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in new_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    if temporary.exists():  # it is the old folder now
        shutil.rmtree(temporary)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file, in the place of the one that is there.

    It is written beside it and renamed. If this is interrupted, the old file is there, or the whole
    new one. A link stays, and leads to the new file.

    Raises:
        OSError: the folder is not there, or not to be written to.
    """
    target = path.resolve()
    temporary = target.with_name(f".{secrets.token_hex(8)}.writing")
    try:
        _write(temporary, data)
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``. An old folder is at ``new`` afterwards, or removed if empty."""
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


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False if the system cannot (only Linux can)."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    status: int = rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    return status == 0

"""Folders and paths: the cache folder, and paths that do not depend on the working folder."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Give the user's own cache folder of this library; it need not exist yet.

    Raises:
        OSError: the process has no user with a home.
    """
    try:
        # Without a home, older versions of platformdirs give a path with a ~ in it.
        return Path(platformdirs.user_cache_dir("pandas-amr")).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"There is no cache folder: {error}") from None


def absolute_path(path: str | Path) -> Path:
    """Make a path independent of the working folder, which may change."""
    return Path(path).expanduser().absolute()

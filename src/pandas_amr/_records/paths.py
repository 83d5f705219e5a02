"""Where what can be had again is kept."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The user's own folder for it; it need not be there yet.

    Raises:
        OSError: the process has no user with a home.
    """
    try:
        return Path(platformdirs.user_cache_dir("pandas-amr"))
    except RuntimeError as error:
        raise FileNotFoundError(f"There is no cache folder: {error}") from None


def absolute_path(path: str | Path) -> Path:
    """A path that means the same file whatever the working folder becomes."""
    return Path(path).expanduser().absolute()

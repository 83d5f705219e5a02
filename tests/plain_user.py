"""Run a Python command as a plain user, from root: in a mount namespace where Python and this project can be walked to."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from pandas_amr.sandbox.guest import confine

UID = 12345


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        child = os.fork()
        if child == 0:
            run_in(Path(place))
        _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


def run_in(place: Path) -> NoReturn:
    """Become the command, with a folder that its mounts and its home are in."""
    needed = {Path(one).absolute() for one in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])}
    hidden = {top for path in needed for top in path.parents if not top.stat().st_mode & 0o001}
    confine.unshare(confine.NEW_MOUNTS)
    confine.mount("none", "/", flags=confine.MS_REC | confine.MS_PRIVATE)
    for top in sorted(hidden, key=lambda path: len(path.parts)):
        if any(outer != top and outer in top.parents for outer in hidden):
            continue  # it is inside one that is laid open
        inside = [path for path in needed if top in path.parents]
        aside = {path: tempfile.mkdtemp(dir=place) for path in inside}
        for path, bound in aside.items():
            confine.mount(str(path), bound, flags=confine.MS_BIND | confine.MS_REC)
        confine.mount("tmpfs", str(top), "tmpfs", 0, "mode=755")
        for path, bound in aside.items():
            path.mkdir(parents=True, exist_ok=True)
            confine.mount(bound, str(path), flags=confine.MS_BIND | confine.MS_REC)
    home = place / "home"
    home.mkdir(parents=True)
    os.chown(home, UID, UID)
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)
    os.chdir(home)
    os.execve(sys.executable, [sys.executable, *sys.argv[1:]], {"PATH": "/usr/bin:/bin", "HOME": str(home)})


if __name__ == "__main__":
    main()

"""Whether a folder is on a disk of this machine: SQLite's locks do not hold on others."""

from __future__ import annotations

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mounts")
NETWORK_TYPES = re.compile(
    r"nfs\d?|cifs|smb\w*|afs|ceph|glusterfs|lustre|beegfs\w*|gpfs|davfs\d?|"
    r"fuse\.(sshfs|glusterfs|ceph\w*|s3fs|gcsfuse|rclone|mfs|lustre|davfs\d?|smbnetfs)"
)
ESCAPES = re.compile(r"\\([0-7]{3})")  # of blanks and the like, in octal


def network_type(folder: Path, mounts: Path = MOUNTS) -> str:
    """Name the network file system that a folder is on; empty if it is on none, or unknown.

    Args:
        folder: the folder; it need not exist yet.
        mounts: a list of what is mounted where. Only Linux has one.
    """
    path = folder.resolve()
    found, found_at = "", -1
    try:
        lines = mounts.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, escaped, kind = line.split()[:3]
        mount = Path(ESCAPES.sub(_octal_character, escaped))
        depth = len(mount.parts)
        if depth >= found_at and path.is_relative_to(mount):
            found, found_at = kind, depth
    return found if NETWORK_TYPES.fullmatch(found) else ""


def _octal_character(match: re.Match[str]) -> str:
    return chr(int(match[1], 8))

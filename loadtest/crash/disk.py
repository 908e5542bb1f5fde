"""A small disk of its own for a run's whole state folder, so that it can be full and have room again.

A tmpfs in a mount namespace of this process and its children: nothing is left behind, however the run ends. It needs
the right to mount (root, or a container that grants it); without it the fault is left out, and the run says so.
"""

import ctypes
import os
import subprocess
from pathlib import Path

SIZE_MB = 3_072
ATTEMPTS = 20
_CLONE_NEWNS = 0x0002_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


def own_namespace() -> str:
    """Let mounts be ours alone; call it on the main thread before another starts. Returns why not, or nothing."""
    if not hasattr(_LIBC, "unshare") or _LIBC.unshare(_CLONE_NEWNS):
        return os.strerror(ctypes.get_errno())
    done = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True, check=False)
    return done.stderr.strip()


class SmallDisk:
    """A disk mounted at ``folder`` while the process lives. Its contents are memory, as a page cache's are."""

    def __init__(self, folder: Path, size_mb: int = SIZE_MB) -> None:
        self._folder = folder
        self._size_mb = size_mb

    def mount(self) -> None:
        """Make the folder a disk.

        Raises:
            OSError: this process may not mount.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._mount(f"size={self._size_mb}m")

    def unmount(self) -> None:
        """Give the memory back; what still has a file open keeps it until its end."""
        subprocess.run(["umount", "--lazy", str(self._folder)], capture_output=True, check=False)

    def fill(self) -> int:
        """Take away all room: from now on every write that needs a new page fails with ENOSPC. Returns MiB in use."""
        for _ in range(ATTEMPTS):
            found = os.statvfs(self._folder)
            used = (found.f_blocks - found.f_bfree) * found.f_frsize
            try:
                self._mount(f"remount,size={used}")
            except OSError:
                continue  # somebody has written meanwhile: a disk cannot be smaller than what is on it
            return used // 1_048_576
        raise OSError(f"{self._folder} cannot be made as small as what is on it")

    def free(self) -> None:
        """Give the room back."""
        self._mount(f"remount,size={self._size_mb}m")

    def _mount(self, options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip() or f"mount ended with {done.returncode}")

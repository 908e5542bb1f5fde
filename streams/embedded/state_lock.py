"""One `sluice up` per state folder: a lock that the kernel releases however its holder ends."""

import fcntl
import os
from pathlib import Path
from typing import IO

from streams.embedded.process import EmbeddedError


class StateLock:
    """An exclusive lock on a state folder; the file tells who holds it."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            EmbeddedError: another process holds it, or the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("a+")
        except OSError as error:
            raise EmbeddedError(f"the state folder cannot be written ({error}); set state_dir") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "?"
            file.close()
            raise EmbeddedError(
                f"Sluice (process {holder}) uses {self._path.parent}: stop it, or set another state_dir"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        self._file = file

    def release(self) -> None:
        """Let go; the file stays, since removing it would let two processes hold different locks."""
        if self._file is not None:
            self._file.close()
            self._file = None

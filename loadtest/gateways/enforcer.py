"""The second kind of gateway: HAProxy, driven over its admin socket by ``gateway.haproxy``."""

from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp


class Enforcer:
    """Stands where HAProxy is not wired yet."""

    def __init__(self, folder: Path, upstream: str, kafka: str, ahead_s: float) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def refuses(self, session: aiohttp.ClientSession) -> None:
        """It refuses."""

    async def serves(self, session: aiohttp.ClientSession, within_s: float) -> None:
        """It serves."""

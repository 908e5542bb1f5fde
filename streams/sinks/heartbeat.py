"""The dead man's switch outside: a request each minute while all is well, as Healthchecks.io and its like want it.

With a path for failures (``/fail``) it says at once what is wrong; without one (Dead Man's Snitch) it falls silent, and
is missed after the grace that is set there. The address is a secret: it stands in no log and no error.
"""

from urllib.parse import urlsplit, urlunsplit

import aiohttp

from streams.watch_ports import HeartbeatError

TIMEOUT_S = 10.0


def failing_url(url: str, path: str) -> str:
    """Where a failure is said: the path behind the address, before its question mark.

    >>> failing_url("https://hc.test/1b2c/", "/fail"), failing_url("https://hc.test/key/sluice?create=1", "/fail")
    ('https://hc.test/1b2c/fail', 'https://hc.test/key/sluice/fail?create=1')
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))


class HttpHeartbeat:
    """Implements ``streams.watch_ports.Heartbeat``; an empty ``fail_path`` says nothing where something fails."""

    def __init__(self, url: str, fail_path: str, method: str = "POST") -> None:
        self._url = url
        self._fail_path = fail_path
        self._method = method
        self._session: aiohttp.ClientSession | None = None

    async def beat(self, is_well: bool, body: str) -> None:
        """One request, with the checks as its body.

        Raises:
            HeartbeatError: it was not taken.
        """
        if not is_well and not self._fail_path:
            return
        url = self._url if is_well else failing_url(self._url, self._fail_path)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), trust_env=True)
        data = body.encode() if self._method == "POST" else None
        headers = {"Content-Type": "text/plain; charset=utf-8"} if data else {}
        try:
            async with self._session.request(
                self._method, url, data=data, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Only the kind of error, and no cause: their texts may hold the address.
            raise HeartbeatError(f"it cannot be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise HeartbeatError(f"it answered {status}")

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

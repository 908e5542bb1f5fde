"""Two hundred clients at once, half of whom read streams, and what each call came to."""

import asyncio
import json
from collections import Counter
from typing import Any, NamedTuple

import aiohttp

from streams.clock import elapsed_s


class Answer(NamedTuple):
    """What one call came to."""

    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    seconds: float


async def ask(
    session: aiohttp.ClientSession, url: str, *, key: str = "sk-search", wish: str = "hello", **fields: Any
) -> Answer:
    """One chat completion, read to its end."""
    began = elapsed_s()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": wish}], **fields}
    headers = {"Authorization": f"Bearer {key}"}
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        text = await response.text()
        try:
            found = json.loads(text)
        except ValueError:
            found = {"text": text}
        return Answer(response.status, dict(response.headers), found, elapsed_s() - began)


class Crowd:
    """Clients that call one after the other, and come back a moment after each refusal, until told to end."""

    def __init__(self, urls: list[str], clients: int, wish: str) -> None:
        self._urls = urls
        self._clients = clients
        self._wish = wish
        self.statuses: Counter[int] = Counter()
        self.by_gateway: dict[str, Counter[int]] = {url: Counter() for url in urls}
        self.last_served: dict[str, float] = {}
        self.first_refused: dict[str, float] = {}
        self.slowest_s = 0.0
        self.refusals: list[Answer] = []
        self._ending = asyncio.Event()

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Call until ``end``; returns when every call under way has come to its end."""
        await asyncio.gather(*(self._client(session, number) for number in range(self._clients)))

    def end(self) -> None:
        """No new calls."""
        self._ending.set()

    def closed_for(self, url: str) -> float:
        """Seconds since a gateway last answered a call; 0.0 while it has refused none."""
        if url not in self.first_refused:
            return 0.0
        return elapsed_s() - max(self.last_served.get(url, 0.0), self.first_refused[url])

    async def _client(self, session: aiohttp.ClientSession, number: int) -> None:
        # Four in five go to the first gateway; every other client streams.
        url = self._urls[1 if len(self._urls) > 1 and number % 5 == 4 else 0]
        await asyncio.sleep(number / self._clients)
        while not self._ending.is_set():
            answer = await ask(session, url, wish=self._wish, stream=number % 2 == 0)
            self.statuses[answer.status] += 1
            self.by_gateway[url][answer.status] += 1
            if answer.status == 200:
                self.last_served[url] = elapsed_s()
                self.slowest_s = max(self.slowest_s, answer.seconds)
                continue
            self.first_refused.setdefault(url, elapsed_s())
            if len(self.refusals) < 50:
                self.refusals.append(answer)
            await asyncio.wait([asyncio.ensure_future(self._ending.wait())], timeout=1.0)

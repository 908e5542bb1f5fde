"""Who may call: a bearer key with the scope that an endpoint needs."""

from typing import Protocol

from fastapi import HTTPException, Request

from streams.ports import RetryableError
from streams.sinks.api_keys import KeyInfo


class Keys(Protocol):
    """Knows API keys (``streams.sinks.api_keys.ApiKeys``)."""

    async def find(self, presented: str) -> KeyInfo | None:
        """Whose key this is; None where it is not a live key."""
        ...


async def require_scope(request: Request, keys: Keys, *scopes: str) -> KeyInfo:
    """The key that came with the request; any one of the scopes will do.

    Raises:
        HTTPException: 401 without a live key, 403 without the scope, 503 where keys can't be looked up.
    """
    scope = " or ".join(scopes)
    kind, _, presented = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer" or not presented.strip():
        raise HTTPException(
            401,
            f"send 'Authorization: Bearer slk_…' with a key of scope {scope} (sluice keys create)",
            {"WWW-Authenticate": "Bearer"},
        )
    try:
        info = await keys.find(presented.strip())
    except RetryableError as error:
        raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
    if info is None:
        raise HTTPException(401, "the API key is unknown or revoked", {"WWW-Authenticate": "Bearer"})
    if not set(scopes) & set(info.scopes):
        raise HTTPException(403, f"the API key {info.name!r} lacks the scope {scope}")
    return info


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body as it came.

    Raises:
        HTTPException: 413 over ``bytes_max``, 415 where it is compressed.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "send the body uncompressed (no Content-Encoding)")
    too_large = HTTPException(413, f"the body is larger than {bytes_max} bytes: send smaller batches")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > bytes_max:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise too_large
    return bytes(body)

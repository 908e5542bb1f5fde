"""A real SMTP server (aiosmtpd) on loopback that keeps what it receives."""

import asyncio
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP

#: No answer for this long, or the end of the connection.
STALL, DROP = "stall", "drop"
STALL_S = 30.0


class MailStandIn:
    """The handler of the server; ``messages`` in the order of arrival."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        #: Answers instead of acceptance, one for each message to come, such as ``"451 later"``, or what is
        #: worse than an answer: ``STALL``, ``DROP``.
        self.refusals: list[str] = []

    def protocol(self) -> SMTP:
        """One connection."""
        return SMTP(self, hostname="standin", enable_SMTPUTF8=True)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Take one message, or refuse it as planned."""
        if self.refusals:
            planned = self.refusals.pop(0)
            if planned == STALL:
                await asyncio.sleep(STALL_S)
            if planned in (STALL, DROP):
                server.transport.abort()
            return planned
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        self.messages.append(parsed)
        return "250 taken"

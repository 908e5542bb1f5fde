"""A real SMTP server (aiosmtpd) on loopback that keeps what it receives."""

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

from aiosmtpd.smtp import SMTP


class MailStandIn:
    """The handler of the server; ``messages`` in the order of arrival."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        #: Answers instead of acceptance, one for each message to come, such as ``"451 later"``.
        self.refusals: list[str] = []

    def protocol(self) -> SMTP:
        """One connection."""
        return SMTP(self, hostname="standin", enable_SMTPUTF8=True)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take one message, or refuse it as planned."""
        if self.refusals:
            return self.refusals.pop(0)
        parsed = message_from_bytes(envelope.content, policy=policy.default)
        self.messages.append(cast(EmailMessage, parsed))
        return "250 taken"

"""E-mail: one message to its recipients, threaded by Message-ID. What it says is in ``mail_text`` and ``mail_html``."""

import re
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Literal

import aiosmtplib

from schemas.instants import InstantError, parse_instant, to_datetime
from schemas.keys import digest
from streams.core.notifying import Notification
from streams.ports import Invitation, Inviting, PermanentError, RetryableError
from streams.sinks import telling
from streams.sinks.mail_html import html_of
from streams.sinks.mail_text import text_of
from streams.sinks.wording import clip

SUBJECT_MAX = 200
TIMEOUT_S = 15.0
RECIPIENTS_MAX = 50
#: Among the recipients of a receiver: whoever owns the alerts.
OWNER = "owner"
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")
_MESSAGE_ID = re.compile(r"<[A-Za-z0-9.!#$%&'*+/=?^_`{|}~@-]{3,250}>")


class MailReceiver:
    """Mails addresses, the alerts' owners, or both.

    Args:
        recipients: addresses; ``owner`` among them stands for the owner of each alert.
        otherwise: who gets what would go to nobody, because an alert's owner has no address.
    """

    keeps_incidents = False

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        recipients: Sequence[str],
        otherwise: Sequence[str] = (),
        name: str = "email",
        username: str | None = None,
        password: str | None = None,
        tls: Literal["none", "starttls", "tls"] = "starttls",
        dashboard_url: str = "",
        runbook_url: str = "",
        inviting: Inviting | None = None,
    ) -> None:
        self.name = name
        self._connection = {
            "hostname": host,
            "port": port,
            "username": username,
            "password": password,
            "use_tls": tls == "tls",
            "start_tls": tls == "starttls",
            "timeout": TIMEOUT_S,
        }
        self._sender = sender
        self._recipients = tuple(address for address in recipients if address != OWNER)
        self._asks_owner = OWNER in recipients
        self._otherwise = tuple(otherwise)
        self._dashboard_url = dashboard_url
        self._runbook_url = runbook_url
        self._inviting = inviting

    async def send(self, notification: Notification, thread: str | None) -> str:
        """Deliver one message; the receipt is its Message-ID, which later messages of the thread answer.

        Raises:
            RetryableError: network trouble, TLS trouble, or a 4xx answer.
            PermanentError: the server refused the message or every recipient, or there is none.
        """
        invitation = self._invitation(notification)
        recipients = invitation.to if invitation else self.recipients(notification)
        if not recipients:
            raise PermanentError(
                f"{self.name} has nobody to write to: its alerts' owners have no address; set mail_to, or `to:` in"
                " routes.yaml"
            )
        mail = compose(
            notification, self._sender, recipients, thread, self._dashboard_url, self._runbook_url, invitation
        )
        try:
            await aiosmtplib.send(mail, **self._connection)  # type: ignore[arg-type]
        except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPSenderRefused) as error:
            text = f"the mail server answered {error.code}: {clip(str(error.message), 200)}"
            raise (PermanentError if error.code >= 500 else RetryableError)(text) from error
        except aiosmtplib.SMTPResponseException as error:
            # It refused us, not the message: a login or a server that can be mended while the message waits.
            text = f"the mail server does not serve us: {error.code} {clip(str(error.message), 200)}"
            raise RetryableError(f"{text}; check smtp_username, smtp_password and smtp_host") from error
        except aiosmtplib.SMTPRecipientsRefused as error:
            permanent = all(recipient.code >= 500 for recipient in error.recipients)
            text = f"every recipient was refused: {clip(str(error), 200)}"
            raise (PermanentError if permanent else RetryableError)(text) from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise RetryableError(f"the mail server cannot be reached: {error!r}") from error
        return str(mail["Message-ID"])

    def recipients(self, notification: Notification) -> tuple[str, ...]:
        """Who gets a message: the addresses, and where asked for the owners; a report goes to the owner it names."""
        if notification.action == "tell" and not notification.alerts:
            to = address(notification.group.get(OWNER, ""))
            return (to,) if to else (self._recipients or self._otherwise)
        found = dict.fromkeys(self._recipients)
        if self._asks_owner:
            for alert in notification.alerts:
                owner = address(alert.owner)
                found.update(dict.fromkeys((owner,) if owner else self._otherwise))
        return tuple(found)[:RECIPIENTS_MAX]

    def _invitation(self, notification: Notification) -> Invitation | None:
        """Of an alert by itself: a link that decides is for nobody else."""
        if self._inviting is None or len(notification.alerts) != 1:
            return None
        return self._inviting.by_mail(notification.alerts[0], self._recipients or self._otherwise)

    async def close(self) -> None:
        """Each message has a connection of its own."""


def address(owner: str) -> str:
    """The address in an owner's text, as ``Lead <lead@example.com>``; empty where there is none that can be used."""
    # What else parseaddr finds in odd text differs between Python's patch releases.
    found = parseaddr(owner)[1] if owner.isprintable() else ""
    # Beyond ASCII an address needs SMTPUTF8, which the owner's server may lack: better mail somebody else.
    return found if found.isascii() and _ADDRESS.fullmatch(found) else ""


def compose(
    notification: Notification,
    sender: str,
    recipients: Sequence[str],
    thread: str | None = None,
    dashboard_url: str = "",
    runbook_url: str = "",
    invitation: Invitation | None = None,
) -> EmailMessage:
    """The mail of one message.

    Its id is derived from the message's, so sent twice it is one mail to programs that compare ids. All mails of a
    thread refer to an id that no mail has, which joins them even where the first was lost; later ones to the first too.
    """
    mail = EmailMessage()
    domain = sender.rpartition("@")[2] or "localhost"
    mail["Subject"] = clip(f"[Sluice] {telling.heading(notification)}", SUBJECT_MAX)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(to_datetime(_decided_at(notification)))
    mail["Message-ID"] = f"<{digest('mail', notification.notification_id)}@{domain}>"
    if notification.action != "tell":
        root = f"<{digest('thread', notification.thread_key)}@{domain}>"
        first = thread if thread and _MESSAGE_ID.fullmatch(thread) and thread != mail["Message-ID"] else None
        mail["In-Reply-To"] = first or root
        mail["References"] = f"{root} {first}" if first else root
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text_of(notification, dashboard_url, runbook_url, invitation))
    mail.add_alternative(html_of(notification, dashboard_url, runbook_url, invitation), subtype="html")
    return mail


def _decided_at(notification: Notification) -> int:
    if notification.decided_at or not notification.alerts:
        return notification.decided_at
    try:
        return parse_instant(notification.alerts[0].stated_at)
    except InstantError:
        return 0

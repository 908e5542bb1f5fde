"""E-mail: multipart text and HTML, threaded by Message-ID, safe against header and markup injection."""

import html
import re
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Literal

import aiosmtplib

from schemas.alerts import Alert
from schemas.instants import parse_instant, to_datetime
from schemas.keys import digest
from streams.ports import Invitation, Inviting, PermanentError, RetryableError
from streams.sinks.wording import RULE_WORDS, clip, facts, title, web_link

SUBJECT_MAX = 200
TIMEOUT_S = 15.0
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]\\]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,188}[A-Za-z0-9])?")


class MailReceiver:
    """Mails the budget's owner, or the default recipients."""

    name = "email"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        recipients: Sequence[str],
        username: str | None = None,
        password: str | None = None,
        tls: Literal["none", "starttls", "tls"] = "starttls",
        dashboard_url: str = "",
        inviting: Inviting | None = None,
    ) -> None:
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
        self._recipients = tuple(recipients)
        self._dashboard_url = dashboard_url
        self._inviting = inviting

    async def send(self, alert: Alert) -> str:
        """Deliver one alert statement; the receipt is the server's answer.

        Raises:
            RetryableError: network trouble, TLS trouble, or a 4xx answer.
            PermanentError: the server refused the message or every recipient.
        """
        invitation = self._inviting.by_mail(alert, self._recipients) if self._inviting else None
        recipients = invitation.to if invitation else self._to(alert)
        mail = compose(alert, self._sender, recipients, self._dashboard_url, invitation)
        try:
            refused, answer = await aiosmtplib.send(mail, **self._connection)  # type: ignore[arg-type]
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
        return f"{answer}; refused: {refused}" if refused else answer

    def _to(self, alert: Alert) -> tuple[str, ...]:
        # What else parseaddr finds in odd text differs between Python's patch releases.
        owner = parseaddr(alert.owner)[1] if alert.owner.isprintable() else ""
        # Beyond ASCII an address needs SMTPUTF8, which the owner's server may lack: better mail the default.
        return (owner,) if owner.isascii() and _ADDRESS.fullmatch(owner) else self._recipients

    async def close(self) -> None:
        """Each message has a connection of its own."""


def compose(
    alert: Alert,
    sender: str,
    recipients: Sequence[str],
    dashboard_url: str = "",
    invitation: Invitation | None = None,
) -> EmailMessage:
    """The message of one alert statement; updates and the resolution answer the first."""
    mail = EmailMessage()
    domain = sender.rpartition("@")[2] or "localhost"
    root = f"<{digest('mail', alert.dedup_key, str(alert.episode))}@{domain}>"
    own = root if alert.status == "opened" else f"<{digest('mail', alert.alert_id)}@{domain}>"
    mail["Subject"] = clip(f"[Sluice] {title(alert)}", SUBJECT_MAX)
    mail["From"] = sender
    mail["To"] = ", ".join(recipients)
    mail["Date"] = format_datetime(to_datetime(parse_instant(alert.stated_at)))
    mail["Message-ID"] = own
    if own != root:
        mail["In-Reply-To"] = root
        mail["References"] = root
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(alert, dashboard_url, invitation))
    mail.add_alternative(_html(alert, dashboard_url, invitation), subtype="html")
    return mail


def _text(alert: Alert, dashboard_url: str, invitation: Invitation | None) -> str:
    lines = [title(alert), ""]
    width = max((len(name) for name, _ in facts(alert)), default=0)
    lines += [f"{name:<{width}}  {value}" for name, value in facts(alert)]
    if invitation and invitation.url:
        lines += ["", "Approve or refuse:", invitation.url, _for_you(invitation)]
    links = [link for link in (dashboard_url, web_link(alert.runbook)) if link]
    if links:
        lines += ["", *links]
    return "\n".join(lines) + "\n"


def _for_you(invitation: Invitation) -> str:
    return f"The link decides once, until {invitation.until}, for whoever has it: do not pass it on."


def _html(alert: Alert, dashboard_url: str, invitation: Invitation | None) -> str:
    rows = "".join(
        f"<tr><th align='left' style='padding:2px 12px 2px 0;color:#666'>{html.escape(name)}</th>"
        f"<td style='padding:2px 0'>{html.escape(value)}</td></tr>"
        for name, value in facts(alert)
    )
    links = [("Dashboard", dashboard_url), ("Runbook", web_link(alert.runbook))]
    shown = "".join(f"<p><a href='{html.escape(url, quote=True)}'>{name}</a></p>" for name, url in links if url)
    if invitation and invitation.url:
        decide = f"<a href='{html.escape(invitation.url, quote=True)}'><b>Approve or refuse</b></a>"
        shown = f"<p>{decide}<br>{html.escape(_for_you(invitation))}</p>{shown}"
    return (
        "<div style='font-family:sans-serif;max-width:640px'>"
        f"<p style='color:#666'>{RULE_WORDS[alert.rule]}</p>"
        f"<h2 style='font-size:18px'>{html.escape(title(alert))}</h2><table>{rows}</table>{shown}</div>"
    )

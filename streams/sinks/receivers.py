"""The receivers: those that the settings configure, and those of the routes file."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pydantic import SecretStr

from streams.clock import WallClock
from streams.ports import Inviting, Receiver
from streams.settings import Settings, SettingsError
from streams.settings_sources import referred
from streams.sinks.mail import OWNER, MailReceiver, address
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.sinks.slack import SlackBotReceiver, SlackWebhookReceiver
from streams.sinks.webhook import WebhookReceiver


class Integrated(Protocol):
    """One way to reach the people of a receiver in ``routes.yaml``.

    ``target`` has, by kind: ``routing_key``; ``webhook_url``, or ``bot_token`` and ``channel``; ``to``; ``url`` and
    ``secret``. Secrets may be references, ``env:NAME`` or ``file:PATH``. None: as the settings have it.
    """

    @property
    def kind(self) -> str:
        """``pagerduty``, ``slack``, ``email`` or ``webhook``."""
        ...

    @property
    def target(self) -> Any:
        """Where to."""
        ...


def receivers(
    settings: Settings, integrations: Mapping[str, Integrated] | None = None, inviting: Inviting | None = None
) -> dict[str, Receiver]:
    """By name or id; what is not configured is not there, and routing passes it over. Without ``inviting`` no message
    carries an approval link.

    Raises:
        SettingsError: with one line for every integration that cannot be made.
    """
    make = _Makers(settings, inviting)
    found: dict[str, Receiver] = {}
    for kind in ("pagerduty", "slack", "email"):
        if make.is_configured(kind):
            found[kind] = make.of(kind, kind, None)
    problems = []
    for name, integration in (integrations or {}).items():
        if name in found and integration.target is None:
            continue
        try:
            found[name] = make.of(name, integration.kind, integration.target)
        except ValueError as error:
            problems.append(f"receiver {name}: {error}")
    if problems:
        raise SettingsError(problems)
    return found


class _Makers:
    """Makes receivers of each kind, with what the settings say for all of them."""

    def __init__(self, settings: Settings, inviting: Inviting | None) -> None:
        self._settings = settings
        self._inviting = inviting
        self._links = {"dashboard_url": settings.public_url, "runbook_url": settings.runbook_url}
        self._by_kind: dict[str, Callable[[str, Any], Receiver]] = {
            "pagerduty": self._pagerduty,
            "slack": self._slack,
            "email": self._email,
            "webhook": self._webhook,
        }

    def is_configured(self, kind: str) -> bool:
        """Whether the settings alone say where to."""
        s = self._settings
        return {
            "pagerduty": s.pagerduty_routing_key is not None,
            "slack": s.slack_bot_token is not None or s.slack_webhook_url is not None,
            "email": s.smtp_host is not None,
        }.get(kind, False)

    def of(self, name: str, kind: str, target: Any) -> Receiver:
        """One receiver.

        Raises:
            ValueError: it cannot be made of this.
        """
        if kind not in self._by_kind:
            raise ValueError(f"{kind} is no kind of receiver; there are {', '.join(self._by_kind)}")
        if target is None and not self.is_configured(kind):
            needed = {"pagerduty": "pagerduty_routing_key", "slack": "slack_bot_token or slack_webhook_url"}
            raise ValueError(f"says nothing of where to, and {needed.get(kind, 'smtp_host')} is not set either")
        return self._by_kind[kind](name, target)

    def _pagerduty(self, name: str, target: Any) -> Receiver:
        key = _secret(self._settings.pagerduty_routing_key) if target is None else referred(target.routing_key)
        if len(key) != 32:
            raise ValueError("a PagerDuty Events v2 integration key has 32 characters")
        return PagerDutyReceiver(
            key,
            name=name,
            url=self._settings.pagerduty_url,
            ca_file=self._settings.pagerduty_ca_file,
            **self._links,
        )

    def _slack(self, name: str, target: Any) -> Receiver:
        s = self._settings
        token = _secret(s.slack_bot_token) if target is None else referred(target.bot_token)
        channel = s.slack_channel if target is None or not target.channel else target.channel
        if target is not None and not token and not target.webhook_url:
            # A channel alone: the settings' own bot writes into it.
            token = _secret(s.slack_bot_token)
        if token:
            if not channel:
                raise ValueError("a Slack bot needs the id of a channel, as C0123456789")
            return SlackBotReceiver(
                token, channel, name=name, api_url=s.slack_api_url, inviting=self._inviting, **self._links
            )
        url = _secret(s.slack_webhook_url) if target is None else referred(target.webhook_url)
        return SlackWebhookReceiver(_web(url), name=name, inviting=self._inviting, **self._links)

    def _email(self, name: str, target: Any) -> Receiver:
        s = self._settings
        if s.smtp_host is None:
            raise ValueError("needs a mail server: set smtp_host")
        to = (OWNER,) if target is None else tuple(target.to)
        if wrong := [one for one in to if one != OWNER and address(one) != one]:
            raise ValueError(
                f"{', '.join(map(repr, wrong))}: that is no mail address, as in lead@example.com, nor owner"
            )
        return MailReceiver(
            s.smtp_host,
            s.smtp_port,
            name=name,
            sender=s.mail_from,
            recipients=to,
            otherwise=s.mail_to,
            username=s.smtp_username,
            password=_secret(s.smtp_password) or None,
            tls=s.smtp_tls,
            inviting=self._inviting,
            **self._links,
        )

    def _webhook(self, name: str, target: Any) -> Receiver:
        url, secret = _web(referred(target.url)), referred(target.secret)
        return WebhookReceiver(url, secret, WallClock().now, name=name, dashboard_url=self._settings.public_url)


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _web(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("its address must start with https:// or http://")
    return url

"""The receivers that the settings configure."""

from streams.ports import Inviting, Receiver
from streams.settings import Settings
from streams.sinks.mail import MailReceiver
from streams.sinks.pagerduty import PagerDutyReceiver
from streams.sinks.slack import SlackReceiver


def receivers(settings: Settings, inviting: Inviting | None = None) -> dict[str, Receiver]:
    """By name; what is not configured is not there, and routing passes it over. Without ``inviting`` no message carries
    an approval link."""
    found: dict[str, Receiver] = {}
    if settings.pagerduty_routing_key is not None:
        found["pagerduty"] = PagerDutyReceiver(
            settings.pagerduty_routing_key.get_secret_value(),
            url=settings.pagerduty_url,
            ca_file=settings.pagerduty_ca_file,
            dashboard_url=settings.public_url,
        )
    if settings.slack_webhook_url is not None:
        found["slack"] = SlackReceiver(
            settings.slack_webhook_url.get_secret_value(), dashboard_url=settings.public_url, inviting=inviting
        )
    if settings.smtp_host is not None:
        password = settings.smtp_password
        found["email"] = MailReceiver(
            settings.smtp_host,
            settings.smtp_port,
            sender=settings.mail_from,
            recipients=settings.mail_to,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            tls=settings.smtp_tls,
            dashboard_url=settings.public_url,
            inviting=inviting,
        )
    return found

"""Whom an `approval_wanted` alert is for, and the signed link that lets him decide.

A link decides for whoever holds it. So it is made when a message leaves, for the receiver that it leaves by, and is
neither in the alert nor in the database.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from schemas.alerts import Alert
from schemas.budgets import Run
from schemas.instants import DAY, parse_instant
from streams.core.approvals import LinkError, link_url, to_second
from streams.core.budget_terms import RUN
from streams.core.definitions import Definitions
from streams.ports import Invitation

logger = logging.getLogger("sluice.notify")

RULE = "approval_wanted"
#: From the alert on; a repeated message says the same link again.
INVITED_FOR = 7 * DAY
#: In `team_leads`: whoever leads a team that is not named.
ANY_TEAM = "*"
IN_SLACK = "somebody in the Slack channel"


class Invitations:
    """Answers for alerts of training runs that wait for an approval.

    Args:
        secret: signs; empty: no links.
        public_url: what links begin with.
        leads: the mail address of each team's lead; ``*``: of all other teams.
        in_slack: whether a channel may have a link, with which everybody in it decides.
    """

    def __init__(
        self,
        definitions: Callable[[], Definitions],
        secret: str,
        public_url: str,
        leads: Mapping[str, str],
        *,
        in_slack: bool = False,
    ) -> None:
        self._definitions = definitions
        self._secret = secret.encode()
        self._public_url = public_url
        self._leads = leads
        self._in_slack = in_slack

    def by_mail(self, alert: Alert, others: Sequence[str]) -> Invitation | None:
        """Of an alert that asks for an approval, its addressees and link; ``others`` are asked where no lead is known.

        None for every other alert.
        """
        if alert.rule != RULE:
            return None
        lead = self._leads.get(alert.team_id) or self._leads.get(ANY_TEAM)
        to = (lead,) if lead else tuple(others)
        return self._to(alert, ", ".join(to), to)

    def by_slack(self, alert: Alert) -> Invitation | None:
        """As ``by_mail``, for whoever reads the channel; without a link unless that was asked for."""
        if alert.rule != RULE:
            return None
        return self._to(alert, IN_SLACK, ()) if self._in_slack else Invitation(())

    def _to(self, alert: Alert, approver: str, to: tuple[str, ...]) -> Invitation:
        run = self._run_of(alert)
        if run is None or not self._secret or alert.status == "resolved":
            return Invitation(to)
        ends = parse_instant(alert.stated_at) + INVITED_FOR
        try:
            return Invitation(to, link_url(self._secret, self._public_url, run, approver, ends), to_second(ends))
        except LinkError as error:
            logger.info("%s is told without a link: %s", alert.dedup_key, error)
            return Invitation(to)

    def _run_of(self, alert: Alert) -> Run | None:
        return self._definitions().runs.get(f"run|{alert.scope_id.removeprefix(RUN)}")

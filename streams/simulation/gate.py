"""The gate of the simulation: the very book of commands that gateways embed, with a delay before it obeys."""

import heapq
from typing import Literal, NamedTuple

import msgspec

from gateway.commands import CommandBook
from schemas.commands import ThrottleCommand
from schemas.events import UNATTRIBUTED, UsageEvent
from schemas.instants import parse_instant

Fate = Literal["passed", "refused", "downgraded", "capped"]


class Passage(NamedTuple):
    """What became of a call: the event as it happened then, and the budget that decided; refused ones have none."""

    fate: Fate
    event: UsageEvent | None
    budget_id: str = ""
    action: str = "allow"


class Held(msgspec.Struct):
    """A restriction as the gate obeyed it; ``end`` is None while it does."""

    budget_id: str
    scope: str
    action: str
    start: int
    end: int | None
    reason: str
    #: When it would end by itself.
    expires: int


class Gate:
    """Obeys each command ``delay_us`` after it was given."""

    def __init__(self, delay_us: int, org_id: str) -> None:
        self._delay_us = delay_us
        self._org_id = org_id
        self._book = CommandBook(lambda: 0)
        self._coming: list[tuple[int, int, ThrottleCommand]] = []
        self._count = 0
        self._held: dict[str, Held] = {}
        #: Everything that was ever held, in the order in which it began.
        self.held: list[Held] = []

    def send(self, command: ThrottleCommand, now: int) -> None:
        """A command is on its way."""
        self._count += 1
        heapq.heappush(self._coming, (now + self._delay_us, self._count, command))

    def next_at(self) -> int | None:
        """When the next command is obeyed."""
        return self._coming[0][0] if self._coming else None

    def obey(self, now: int) -> None:
        """Take what has arrived by now."""
        while self._coming and self._coming[0][0] <= now:
            at, _, command = heapq.heappop(self._coming)
            self._book.apply(command.key(), command, at)
            self._note(command, at)

    def let(self, event: UsageEvent, now: int) -> Passage:
        """Decide about one call, and how it goes on."""
        named = {
            "org": event.org_id or self._org_id,
            "cost_center": event.cost_center,
            "team": event.team_id or UNATTRIBUTED,
            "project": event.project_id,
            "feature": event.feature or UNATTRIBUTED,
            "model": event.model,
            "provider": event.provider,
            "environment": event.environment,
            "request_type": event.request_type,
            "experiment": event.experiment_id,
            "run": event.run_id,
            "key": event.key_id,
            "user": event.user_id,
            "task": event.task_id,
            "session": event.session_id,
        }
        decision = self._book.check(**named, tokens=event.input_tokens + event.output_tokens, now=now)  # type: ignore[arg-type]
        budget_id = decision.command.budget_id if decision.command else ""
        if not decision.allowed:
            return Passage("refused", None, budget_id, decision.action)
        after: UsageEvent = event
        fate: Fate = "passed"
        cap = decision.max_tokens
        if cap is not None and event.output_tokens > cap:
            after, fate = _capped(after, cap), "capped"
        if decision.model_fallback and decision.model_fallback != event.model:
            after, fate = _instead(after, decision.model_fallback), "downgraded"
        return Passage(fate, after, budget_id, decision.action)

    def finish(self, now: int) -> None:
        """Nothing more comes: what has run out by now has ended."""
        for held in self._held.values():
            if held.end is None and held.expires <= now:
                held.end = held.expires

    def _note(self, command: ThrottleCommand, at: int) -> None:
        key = command.key()
        before = self._held.get(key)
        holds = command.action not in ("allow", "release") and not command.dry_run
        until = parse_instant(command.holds_until or command.expires_at)
        if before is not None and before.end is None:
            if holds and before.action == command.action:
                before.expires = until
                return
            before.end = min(at, before.expires)
        if holds:
            scope = command.target.key()
            found = Held(command.budget_id, scope, command.action, at, None, command.reason, until)
            self._held[key] = found
            self.held.append(found)


def _instead(event: UsageEvent, model: str) -> UsageEvent:
    """The same call of another model; what the gateway said of its cost was about the first one."""
    return msgspec.structs.replace(event, request_model=model, response_model=model, reported_cost=None)


def _capped(event: UsageEvent, tokens: int) -> UsageEvent:
    reasoning = min(event.reasoning_output_tokens, tokens)
    return msgspec.structs.replace(event, output_tokens=tokens, reasoning_output_tokens=reasoning, reported_cost=None)

"""The lines of receivers: what becomes of each answer, who waits for whom, and what a stop leaves behind."""

import asyncio
import contextlib

import pytest

from streams.agents.deliver import Deliverer
from streams.agents.notify import Woken
from streams.core.delivery import ReceiverPolicy
from streams.core.notifying import Notification
from streams.delivering import Delivery, Failure
from streams.ports import PermanentError, RetryableError


def message(receiver="slack", ident="n"):
    return Notification(
        notification_id=ident, receiver=receiver, thread_key="t", action="tell", reason="report", alerts=(),
        heading="h", paragraphs=("p",),
    )  # fmt: skip


class Outbox:
    """Owes each receiver some messages once, and keeps what it is told."""

    def __init__(self, **owed):
        self.owed = {name: [message(name, f"{name}-{n}") for n in range(count)] for name, count in owed.items()}
        self.marked = []

    async def lease(self, receiver, room, lease_s, policy):
        found, self.owed[receiver] = self.owed[receiver][:room], self.owed[receiver][room:]
        return [Delivery(notification=each, thread="first", attempt=1, owed_at=1 << 60) for each in found]

    async def sent(self, delivery, receipt, took_s):
        self.marked.append((delivery.notification.notification_id, receipt))

    async def failed(self, delivery, failure, took_s, retry_in_s, judge):
        self.marked.append((delivery.notification.notification_id, failure, retry_in_s is not None))

    async def fall_back(self, *_):
        return 0

    async def give_up_on_strangers(self, *_):
        return ()


class Receiver:
    """Answers as it is told; counts how many it has in hand at once."""

    keeps_incidents = False

    def __init__(self, answer=None, stalls=False):
        self.answer, self.stalls = answer, stalls
        self.begun, self.go_on, self.threads = asyncio.Event(), asyncio.Event(), []
        self.in_hand = self.most = 0

    async def send(self, notification, thread):
        self.threads.append(thread)
        self.in_hand += 1
        self.most = max(self.most, self.in_hand)
        self.begun.set()
        try:
            if self.stalls:
                await self.go_on.wait()
        finally:
            self.in_hand -= 1
        if self.answer is not None:
            raise self.answer
        return "receipt"


@contextlib.asynccontextmanager
async def delivering(outbox, send_s=5.0, **receivers):
    loop = Deliverer(
        outbox, receivers, {name: ReceiverPolicy(name) for name in receivers}, {}, Woken(), send_s=send_s
    ).run_background()
    task = asyncio.create_task(loop)
    yield task
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("answer", "marked"),
    [
        pytest.param(None, ("slack-0", "receipt"), id="it took it"),
        pytest.param(
            RetryableError("503"), ("slack-0", Failure("503"), True), id="it may take it later"),
        pytest.param(
            RetryableError("429", 7.0), ("slack-0", Failure("429", asked_s=7.0), True), id="it asks for patience"),
        pytest.param(
            PermanentError("404"), ("slack-0", Failure("404", is_permanent=True), False), id="it refuses for good"),
        pytest.param(
            KeyError("bug"), ("slack-0", Failure("KeyError('bug')"), True), id="its own mistake is tried again"),
    ],
)  # fmt: skip
async def test_each_answer_is_marked_for_what_it_is(answer, marked):
    outbox, receiver = Outbox(slack=1), Receiver(answer)
    async with delivering(outbox, slack=receiver):
        await until(lambda: outbox.marked)
    assert outbox.marked == [marked]
    assert receiver.threads == ["first"]


async def test_a_receiver_that_does_not_answer_in_time_is_tried_again():
    outbox = Outbox(slack=1)
    async with delivering(outbox, send_s=0.01, slack=Receiver(stalls=True)):
        await until(lambda: outbox.marked)
    assert [(each[0], each[2]) for each in outbox.marked] == [("slack-0", True)]


async def test_a_receiver_that_stalls_holds_up_nobody_else_and_has_eight_in_hand_at_most():
    outbox, stalled = Outbox(slack=20, email=20), Receiver(stalls=True)
    async with delivering(outbox, slack=stalled, email=Receiver()):
        await until(lambda: len(outbox.marked) == 20)
        assert {each[0].split("-")[0] for each in outbox.marked} == {"email"}
        assert stalled.most == 8
        stalled.go_on.set()
        await until(lambda: len(outbox.marked) == 40)
    assert stalled.most == 8


async def test_a_stop_waits_for_what_is_on_its_way_instead_of_having_it_said_twice():
    outbox, receiver = Outbox(slack=1), Receiver(stalls=True)
    async with delivering(outbox, slack=receiver) as task:
        await receiver.begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        assert outbox.marked == []
        receiver.go_on.set()
    assert outbox.marked == [("slack-0", "receipt")]

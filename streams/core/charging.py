"""What an event costs, and on what ground: the price book applied, with one source of record for each dollar."""

from schemas.events import BillingRecord, GpuSample, UsageEvent
from streams.core.cells import Charge
from streams.core.pricing import (
    Basis,
    PriceBook,
    PriceError,
    UnknownCurrency,
    bill_category,
    source_of_record,
)
from streams.core.rates import FlatTerms
from streams.core.reading import Reason, Rejected


class Charging:
    """METER's view of the price book."""

    def __init__(self, book: PriceBook, metered_providers: frozenset[str]) -> None:
        self._book = book
        self._metered = metered_providers

    def charge(self, event: UsageEvent | GpuSample | BillingRecord, event_time: int) -> Charge:
        """The charge of one event.

        Raises:
            Rejected: a bill in a currency without a rate, or usage that no price can apply to.
        """
        try:
            if isinstance(event, UsageEvent):
                priced = self._book.price_usage(event, event_time)
            elif isinstance(event, GpuSample):
                priced = self._book.price_gpu(event, event_time)
            else:
                return self._bill(event, event_time)
        except PriceError as error:
            raise Rejected(Reason.IMPOSSIBLE_USAGE, str(error)) from error
        return Charge(
            priced.nanos,
            estimated=priced.basis is Basis.REPORTED,
            unpriced=priced.basis is Basis.UNPRICED,
        )

    def flat(self, event: UsageEvent, event_time: int) -> FlatTerms | None:
        """The rates of every call with the attributes of this one, and for how long; None: charge each of them."""
        return self._book.flat_terms(event, event_time)

    def _bill(self, bill: BillingRecord, event_time: int) -> Charge:
        try:
            nanos = self._book.price_bill(bill, event_time).nanos
        except UnknownCurrency as error:
            raise Rejected(Reason.UNKNOWN_CURRENCY, str(error)) from error
        if source_of_record(bill, self._metered) == "meter":
            return Charge(0, reconciled_nanos=nanos)
        return Charge(nanos)

    def bill_category(self, bill: BillingRecord) -> str:
        """The category that a bill line's money belongs to."""
        return bill_category(bill)

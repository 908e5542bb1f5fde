"""What is stored of a projection: a row for each method, at one of some thirty points of its period."""

from schemas.instants import DAY, HOUR, MINUTE
from streams.core.forecast import Projection, Standing
from streams.history_ports import ForecastRow


def rows_of(standing: Standing, projection: Projection) -> list[ForecastRow]:
    """The rows of one budget."""
    best = projection.best
    return [
        ForecastRow(
            budget_id=standing.budget_id,
            value=standing.value,
            period_start=0 if standing.rolling_hours else standing.period_start,
            method=each.method,
            at=projection.at - projection.at % point_length(standing),
            said_at=projection.at,
            until=projection.until,
            timezone=standing.timezone,
            spent_nanos=projection.spent_nanos,
            limit_nanos=projection.limit_nanos,
            projected_nanos=each.projected_nanos,
            low_nanos=each.low_nanos,
            high_nanos=each.high_nanos,
            exhausts_at=each.exhausts_at,
            is_best=each is best,
            burn_nanos_per_hour=projection.burn_nanos_per_hour,
            known_us=projection.known_us,
            judged=each.record.judged,
            error_permille=each.record.error_permille,
            bias_permille=each.record.bias_permille,
        )
        for each in projection.estimates
    ]


def point_length(standing: Standing) -> int:
    """How long what is said stands before it is kept as said: 5 minutes to a day, by the length of the period.

    >>> hour, month = Standing("b", "", 0, HOUR, 0, 1, ()), Standing("b", "", 0, 31 * DAY, 0, 1, ())
    >>> point_length(hour) // MINUTE, point_length(month) // HOUR
    (5, 24)
    """
    length = standing.rolling_hours * HOUR or (standing.period_end or standing.period_start + 31 * DAY)
    length = length if standing.rolling_hours else length - standing.period_start
    for longest, point in ((2 * HOUR, 5 * MINUTE), (2 * DAY, HOUR), (8 * DAY, 6 * HOUR)):
        if length <= longest:
            return point
    return DAY

"""Money on the wire and in memory: integer nanodollars inside, decimal strings with a currency outside.

One dollar is ``NANOS`` nanodollars. No float ever holds money (docs/architecture.md, rule 3).
"""

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

NANOS = 1_000_000_000

#: Wide enough for 10^20 dollars with 18 decimals; rounding happens once, explicitly.
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


class MoneyError(ValueError):
    """An amount that is not a finite decimal number."""


def parse_nanos(amount: str | int | Decimal) -> int:
    """Turn an amount of dollars into nanodollars, rounding half to even once.

    Raises:
        MoneyError: the amount is not a finite decimal number.

    >>> parse_nanos("0.000000001"), parse_nanos("12.5"), parse_nanos("-3")
    (1, 12500000000, -3000000000)
    >>> parse_nanos("0.0000000005"), parse_nanos("0.0000000015")
    (0, 2)
    """
    try:
        value = Decimal(amount)
    except (InvalidOperation, ValueError, TypeError) as error:
        raise MoneyError(f"not an amount of money: {amount!r}") from error
    # Not abs(): it rounds, and overflows where the exponent is a crafted one.
    if not value.is_finite() or value.copy_abs() >= Decimal(10) ** 20:
        raise MoneyError(f"not a finite amount below 10^20 dollars: {amount!r}")
    return int(_EXACT.multiply(value, Decimal(NANOS)).to_integral_value(ROUND_HALF_EVEN))


def format_usd(nanos: int) -> str:
    """Write nanodollars as an exact decimal string of dollars, without an exponent.

    >>> format_usd(12_500_000_000), format_usd(-1), format_usd(0)
    ('12.5', '-0.000000001', '0')
    """
    sign = "-" if nanos < 0 else ""
    whole, rest = divmod(abs(nanos), NANOS)
    if rest == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{rest:09d}".rstrip("0")


def display_usd(nanos: int) -> str:
    """Write nanodollars for people: two decimals from a cent up, four significant ones below.

    >>> display_usd(1_234_567_890_000), display_usd(12_345_678), display_usd(-5_000_000_000)
    ('$1,234.57', '$0.01235', '-$5.00')
    """
    sign = "-" if nanos < 0 else ""
    size = abs(nanos)
    if size >= NANOS // 10 or size == 0:
        cents = (size * 100 + NANOS // 2) // NANOS
        return f"{sign}${cents // 100:,}.{cents % 100:02d}"
    return f"{sign}${Decimal(size) / NANOS:.4g}" if size >= 1000 else f"{sign}${Decimal(size) / NANOS:.9f}"

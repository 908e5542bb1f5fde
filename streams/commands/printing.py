"""Tables as the operator's commands print them: drawn on a terminal, aligned plain text for a file or a pipe."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: Text with the style that it has on a terminal.
Cell = str | tuple[str, str]


def print_table(
    out: Console, columns: Sequence[str], rows: Sequence[Sequence[Cell]], numbers: Sequence[str] = ()
) -> None:
    """Print rows under their columns; ``numbers`` names the columns that are set flush right."""
    if not out.is_terminal:
        _print_plain(out, columns, [[_text(cell) for cell in row] for row in rows], numbers)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else Text(*cell) for cell in row))
    out.print(table)


def _print_plain(out: Console, columns: Sequence[str], rows: list[list[str]], numbers: Sequence[str]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        cells = [
            text.rjust(width) if name in numbers else text.ljust(width)
            for name, text, width in zip(columns, line, widths, strict=True)
        ]
        print_line(out, "  ".join(cells).rstrip())


def print_line(out: Console, text: str, style: str | None = None) -> None:
    """One line as it is: no markup, nothing highlighted, never broken."""
    out.print(Text(text), style=style, soft_wrap=True, highlight=False)


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]

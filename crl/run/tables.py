"""Plain-text tables, and the paper's numbers next to ours."""


def aligned(title: str, header: list[str], rows: list[list[str]], left: int) -> str:
    """A table; the first `left` columns are aligned left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [row[i].ljust(widths[i]) for i in range(left)]
        cells += [row[i].rjust(widths[i]) for i in range(left, len(row))]
        return "  ".join(cells)

    rule = "-" * len(line(header))
    return "\n".join([title, rule, line(header), rule, *map(line, rows), rule])


def beside(paper: float, ours: float) -> list[str]:
    """The cells `paper`, `ours` and `difference` of a comparison.

    >>> beside(88.67, 90.0)
    ['88.67', '90.00', '+1.33']
    """
    return [f"{paper:.2f}", f"{ours:.2f}", f"{ours - paper:+.2f}"]

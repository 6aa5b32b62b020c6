"""Numbers as people read them: 66.0M weights, 1.5 MB, 10.3 times."""

from __future__ import annotations

import math


def count(number: float) -> str:
    """A count in three digits and a suffix: 980, 12.3k, 66.0M, 1.20G."""
    if not math.isfinite(number):
        return str(number)
    if abs(number) < 999.5:  # more would print as 1000: the next suffix takes it, here and below
        return f"{number + 0:.0f}" if float(number).is_integer() else figure(number)
    for suffix, unit in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)):
        value = number / unit
        if abs(value) < 999.5:
            return f"{value:.{_decimals(value)}f}{suffix}"
    return f"{number:.2e}"


def figure(value: float, digits: int = 3) -> str:
    """At least `digits` significant digits, large numbers in full: 0.25, 12.3, 1000 (never 1e+03)."""
    text = f"{value:.{digits}g}"
    return f"{value:.0f}" if "e+" in text else text


def size(number: float) -> str:
    """Bytes in decimal units, as file managers and disks count them: 412 B, 15.2 kB, 26.4 MB."""
    text = count(number)
    return f"{text[:-1]} {text[-1]}B" if text[-1] in "kMGTP" else f"{text} B"


def percent(share: float) -> str:
    """A share of one as a percentage that never rounds a part to nothing or to the whole: <0.1%, 12.5%, >99.9%."""
    if share <= 0 or share >= 1:
        return f"{share:.0%}"
    if share < 0.001:
        return "<0.1%"
    return ">99.9%" if share > 0.999 else f"{100 * share:.1f}%"


def times(ratio: float) -> str:
    """A factor, never rounded to nothing: 0.0042x, 1.04x, 7.49x, 12.3x, 128x."""
    if 0 < abs(ratio) < 0.1:
        return f"{ratio:.2g}x"
    return f"{ratio:.{_decimals(ratio)}f}x" if math.isfinite(ratio) else f"{ratio}x"


def plural(number: int, noun: str) -> str:
    """`1 unit`, `2 units`; thousands are set apart."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listing(parts: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def _decimals(value: float) -> int:
    return 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0

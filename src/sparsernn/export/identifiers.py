"""Names that C and the languages of the wrappers leave free."""

from __future__ import annotations

import re
from collections.abc import Iterable

KEYWORDS = frozenset(
    "alignas alignof and and_eq asm auto bitand bitor bool break case catch char class compl concept const const_cast "
    "constexpr continue decltype default delete do double dynamic_cast else enum explicit export extern false float "
    "for friend goto if inline int long mutable namespace new noexcept not not_eq nullptr operator or or_eq private "
    "protected public register reinterpret_cast requires restrict return short signed sizeof static static_assert "
    "static_cast struct switch template this thread_local throw true try typedef typeid typename typeof union unsigned "
    "using virtual void volatile wchar_t while xor xor_eq".split()
)
RUST = frozenset(
    "abstract as async await become box crate dyn final fn gen impl in let loop macro match mod move mut override priv "
    "pub ref self static super trait type unsafe unsized use where yield".split()
)
HEADERS = frozenset(
    "assert complex ctype errno fenv float inttypes iso646 limits locale math setjmp signal stdalign stdarg stdatomic "
    "stdbool stddef stdint stdio stdlib stdnoreturn string tgmath threads time uchar wchar wctype".split()
)
OWN = frozenset("s f i b w q k t n file weights state state_ model".split())  # names that a step or a wrapper uses
_COUNTER = r"i\d+"  # of loops


def identifiers(names: Iterable[str]) -> list[str]:
    """Names of arguments for names of any kind, each another one."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_") or "x"
        plain = f"x{plain}" if plain[0].isdigit() else plain
        while plain in KEYWORDS | RUST | OWN or plain in found or re.fullmatch(_COUNTER, plain):
            plain += "_"
        found.append(plain)
    return found

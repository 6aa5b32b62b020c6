"""The C of the products: y[0..rows) += W x, one accumulator a row, columns in ascending order on every processor.

Weights lie in strips of 16 rows, column after column; `$W` lanes of a vector share a strip. Each entry: what else it
needs, and its text.
"""

from __future__ import annotations

from .kernels_int8 import INT8

PRELUDE = """\
/* Sums and products are rounded one by one, so that every processor gives the same bits. */
#if defined(__FAST_MATH__) || defined(_M_FP_FAST) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "$: -ffast-math, or a part of it, changes the results: compile this file without it."
#endif
#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD != 0 && FLT_EVAL_METHOD != 16 /* 16: halves are halves as well */
#error "$: floats have to be worked out as floats: on 32-bit x86 compile with -msse2 -mfpmath=sse."
#endif
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off", "no-unsafe-math-optimizations", "no-associative-math", "no-reciprocal-math")
#elif defined(_MSC_VER)
#pragma fp_contract(off)
#else
#pragma STDC FP_CONTRACT OFF
#endif

/* $W: lanes of a vector; -D$W=1 compiles without any. NEON of 32 bits takes subnormal numbers for zero: by -D$W=4. */
#if !defined($W)
#if !defined(__GNUC__)
#define $W 1
#elif defined(__AVX512F__)
#define $W 16
#elif defined(__AVX__)
#define $W 8
#elif defined(__SSE2__) || (defined(__ARM_NEON) && defined(__aarch64__)) || defined(__wasm_simd128__)
#define $W 4
#else
#define $W 1
#endif
#endif

#if $W > 1
typedef float $V __attribute__((vector_size(4 * $W)));
typedef int32_t $I __attribute__((vector_size(4 * $W)));
typedef float $U __attribute__((vector_size(4 * $W), aligned(4), may_alias));
#define $LD(p) (*(const $U *)(p))
#define $ST(p, v) (*($U *)(p) = (v))
#define $PICK(m, a, b) (($V)((($I)(a) & (m)) | (($I)(b) & ~(m))))
#else
typedef float $V;
#define $LD(p) (*(p))
#define $ST(p, v) (*(p) = (v))
#endif
"""

ALL = """\
#if $W > 1
static inline $V $ALL(const float x)
{
    const $V zero = {0.0f};
    return x - zero;
}
#endif
"""

BITS = """\
static inline int32_t $bits(const float x)
{
    int32_t i;
    $memcpy(&i, &x, sizeof i);
    return i;
}
"""

FLOAT = """\
static inline float $float(const int32_t i)
{
    float x;
    $memcpy(&x, &i, sizeof x);
    return x;
}
"""

MEMCPY = """\
#if defined(__GNUC__)
#define $memcpy __builtin_memcpy
#else
#include <string.h>
#define $memcpy memcpy
#endif
"""

INF = """\
#if defined(__GNUC__)
#define $INF __builtin_inff()
#else
#include <math.h>
#define $INF INFINITY
#endif
"""

NAN = """\
#if defined(__GNUC__)
#define $NAN __builtin_nanf("")
#else
#include <math.h>
#define $NAN NAN
#endif
"""

APART = """\
/* Small processors have little stack: what stands in the step would ask for its registers' room in every product. */
#if defined(__GNUC__) && defined(__thumb__) && !defined(__ARM_NEON)
#define $APART __attribute__((noinline))
#define $WITHIN inline __attribute__((always_inline))
#else
#define $APART
#define $WITHIN
#endif
"""

EACH = """\
#define $EACH1(F) F(0)
#define $EACH2(F) $EACH1(F) F(1)
#define $EACH4(F) $EACH2(F) F(2) F(3)
#define $EACH8(F) $EACH4(F) F(4) F(5) F(6) F(7)
#define $EACH16(F) $EACH8(F) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)
#if $W == 16
#define $STRIP $EACH1
#define $PANEL $EACH4
#define $STRIPS 4
#elif $W == 8
#define $STRIP $EACH2
#define $PANEL $EACH8
#define $STRIPS 4
#elif $W == 4
#define $STRIP $EACH4
#define $PANEL $EACH8
#define $STRIPS 2
#else
#define $STRIP $EACH16
#define $PANEL $EACH16
#define $STRIPS 1
#endif
/* Vector k of a panel lies in strip k / $VECTORS of it. */
#define $VECTORS (16 / $W)
#define $LOAD(k) $V s##k = $LD(y + (k) * $W);
#define $KEEP(k) $ST(y + (k) * $W, s##k);
"""

DENSE = """\
#define $ADD(k) s##k += $LD(w + (k) / $VECTORS * strip + (k) % $VECTORS * $W) * a;

static void $strip(const float *w, const float *x, float *y, int columns)
{
    const int strip = 0;
    $STRIP($LOAD)
    (void)strip;
    for (int c = 0; c < columns; ++c, w += 16) {
        const float a = x[c];
        $STRIP($ADD)
    }
    $STRIP($KEEP)
}

#if $STRIPS > 1
static void $panel(const float *w, const float *x, float *y, int columns)
{
    const int strip = 16 * columns;
    $PANEL($LOAD)
    for (int c = 0; c < columns; ++c, w += 16) {
        const float a = x[c];
        $PANEL($ADD)
    }
    $PANEL($KEEP)
}
#endif

/* y[0..rows) += W x, of all weights. */
static $APART void $dense(const float *w, const float *x, float *y, int columns, int rows)
{
#if $STRIPS > 1
    for (; rows >= 16 * $STRIPS; rows -= 16 * $STRIPS, y += 16 * $STRIPS, w += 16 * $STRIPS * columns)
        $panel(w, x, y, columns);
#endif
    for (; rows >= 16; rows -= 16, y += 16, w += 16 * columns)
        $strip(w, x, y, columns);
    if (rows > 0) {
        float rest[16] = {0.0f};
        for (int r = 0; r < rows; ++r)
            rest[r] = y[r];
        $strip(w, x, rest, columns);
        for (int r = 0; r < rows; ++r)
            y[r] = rest[r];
    }
}
"""

BLOCKS = """\
#define $TAKE(k) s##k += $LD(w + (k) * $W) * a;

/* One strip: how many columns it has, which, and their weights. Returns where the next one's columns begin. */
static const $T *$block(const float *w, const $T *index, const float *x, float *y)
{
    const int count = *index++;
    $STRIP($LOAD)
    for (int k = 0; k < count; ++k, w += 16) {
        const float a = x[index[k]];
        $STRIP($TAKE)
    }
    $STRIP($KEEP)
    return index + count;
}

/* y[0..rows) += W x for each of `gates` parts of y, of the blocks of 16 rows and 1 column that are not zero. */
static $APART void $blocks(const float *w, const $T *index, const float *x, float *y, int rows, int gates)
{
    for (; gates > 0; --gates, y += rows) {
        for (int r = 0; r < rows; r += 16) {
            const int left = rows - r < 16 ? rows - r : 16;
            const $T *const now = index;
            if (left == 16) {
                index = $block(w, now, x, y + r);
            } else {
                float rest[16] = {0.0f};
                for (int k = 0; k < left; ++k)
                    rest[k] = y[r + k];
                index = $block(w, now, x, rest);
                for (int k = 0; k < left; ++k)
                    y[r + k] = rest[k];
            }
            w += 16 * *now;
        }
    }
}
"""


def _of_width(text: str, bits: int) -> str:
    """`text` for columns of so many bits."""
    for name in ("TAKE", "blocks", "block"):
        text = text.replace(f"${name}(", f"${name}{bits}(") if name != "TAKE" else text
    return text.replace("$T ", f"uint{bits}_t ")


KERNELS: dict[str, tuple[tuple[str, ...], str]] = {
    "each": ((), EACH),
    "dense": (("each",), DENSE),
    "take": (("each",), BLOCKS.partition("\n\n")[0] + "\n"),
    "blocks8": (("take",), _of_width(BLOCKS.partition("\n\n")[2], 8)),
    **INT8,
    "blocks16": (("take",), _of_width(BLOCKS.partition("\n\n")[2], 16)),
}

# What stands at the head of a file if one of these words is in it.
PIECES = [
    (("$bits(", "$float(", "$memcpy("), MEMCPY),
    (("$bits(",), BITS),
    (("$float(",), FLOAT),
    (("$ALL(",), ALL),
    (("$INF",), INF),
    (("$NAN",), NAN),
    (("$APART", "$WITHIN"), APART),
]


def pieces(text: str) -> list[str]:
    """The definitions that `text` needs."""
    return [piece for marks, piece in PIECES if any(mark in text for mark in marks)]

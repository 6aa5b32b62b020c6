"""The C that makes int8 of the inputs of products: by the largest of each row, or by a scale known beforehand."""

from __future__ import annotations

NARROW = """\
#if $W == 8 && defined(__AVX2__)
#define $NARROW(p, i) { \\
        const __m256i low = (__m256i)(i & 255); \\
        const __m128i n = _mm_packs_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)); \\
        _mm_storel_epi64((__m128i *)(p), _mm_packus_epi16(n, n)); \\
    }
#elif $W > 1
typedef int8_t $Q __attribute__((vector_size($W)));
#define $NARROW(p, i) { \\
        const $Q n = __builtin_convertvector(i, $Q); \\
        $memcpy(p, &n, $W); \\
    }
#endif
"""

QUANTISE = """\
/* q = round(x / s) of `columns` numbers, then zeros up to a multiple of 4. Returns s = max |x| / 127, NaN for a NaN. */
static float $quantise(const float *x, int8_t *q, int columns)
{
    int32_t bits = 0; /* those of sizes are in the order of the sizes, with NaN above all */
    int c = 0;
#if $W > 1
    $I all = {0};
    for (; c + $W <= columns; c += $W) {
        const $I size = ($I)$LD(x + c) & 0x7fffffff;
        const $I larger = size > all;
        all = (size & larger) | (all & ~larger);
    }
    for (int k = 0; k < $W; ++k)
        bits = all[k] > bits ? all[k] : bits;
#endif
    for (; c < columns; ++c) {
        const int32_t size = $bits(x[c]) & 0x7fffffff;
        bits = size > bits ? size : bits;
    }
    const float most = $float(bits);
    const float inverse = most > 1e-30f ? 127.0f / most : 0.0f;
    c = 0;
#if $W > 1
    for (; c + $W <= columns; c += $W) {
        const $I i = ($I)($LD(x + c) * inverse + 12582912.0f);
        $NARROW(q + c, i)
    }
#endif
    for (; c < columns; ++c)
        q[c] = (int8_t)($bits(x[c] * inverse + 12582912.0f) & 255);
    for (; c & 3; ++c)
        q[c] = 0;
    return most / 127.0f;
}
"""

FIXED = """\
/* q = round(x * inverse), held to -127..127, then zeros up to a multiple of 4. Returns 1, or no number where one of x
   is not finite. */
static float $fixed(const float *x, int8_t *q, int columns, float inverse)
{
    const int32_t least = 0x4b3fff81, most = 0x4b40007f; /* 12582912.0f - 127 and + 127: bits are in their order */
    float s = 1.0f;
    int c = 0;
#if $W > 1
    $V all = {0.0f};
    for (; c + $W <= columns; c += $W) {
        const $V a = $LD(x + c);
        $I i = ($I)(a * inverse + 12582912.0f);
        const $I above = i > most, below = i < least;
        all += a - a;
        i = (most & above) | (least & below) | (i & ~(above | below));
        $NARROW(q + c, i)
    }
    for (int k = 0; k < $W; ++k)
        s += all[k];
#endif
    for (; c < columns; ++c) {
        const int32_t i = $bits(x[c] * inverse + 12582912.0f);
        s += x[c] - x[c];
        q[c] = (int8_t)((i > most ? most : i < least ? least : i) & 255);
    }
    for (; c & 3; ++c)
        q[c] = 0;
    return s;
}
"""

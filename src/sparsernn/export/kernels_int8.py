"""The C of products in int8: words of 16 rows and 4 columns, sums exact in 32 bits in whatever order.

A row of x becomes round(x / s), s = max |x| / 127, at each step; y[r] += sum * (t[r] s), t the scale of the weights of
row r. Where batches have fixed the scale of x, t has it too, and s is 1, or no number where one of x is not finite.
A vector holds the sums of some rows, or two partial ones of each: columns 0 and 1, and 2 and 3, of a word.
"""

from __future__ import annotations

from .kernels_quantise import FIXED, NARROW, QUANTISE

VECTORS = """\
#if $W > 1 && defined(__AVX2__)
#include <immintrin.h>
/* |x| times w with the sign of x: no number is -128, so that two products fit into 16 bits and none is cut. */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define $SUMS_DOT(s, u, v) _mm256_dpbusd_epi32(s, u, v)
#elif defined(__AVXVNNI__)
#define $SUMS_DOT(s, u, v) _mm256_dpbusd_avx_epi32(s, u, v)
#else
#define $SUMS_DOT(s, u, v) \\
    _mm256_add_epi32(s, _mm256_madd_epi16(_mm256_maddubs_epi16(u, v), _mm256_set1_epi16(1)))
#endif
#define $SUMS __m256i
#define $SUMS_OF_X __m256i
#define $SUMS_ZERO _mm256_setzero_si256()
#define $SUMS_EACH $EACH2
#define $SUMS_X(v) _mm256_set1_epi32(v)
#define $SUMS_ADD(s, p, x) \\
    $SUMS_DOT(s, _mm256_abs_epi8(x), _mm256_sign_epi8(_mm256_loadu_si256((const __m256i *)(p)), x))
#define $SUMS_KEEP(p, s) _mm256_storeu_si256((__m256i *)(p), s)
#define $SUMS_ROWS 8
#define $SUMS_DONE(p) $SUMS_KEEP(p, s0); $SUMS_KEEP((p) + 8, s1);
#elif $W > 1 && defined(__SSE2__)
#include <emmintrin.h>
#define $SUMS __m128i
#define $SUMS_OF_X __m128i
#define $SUMS_ZERO _mm_setzero_si128()
#define $SUMS_EACH $EACH8
#define $SUMS_WIDE(v) _mm_srai_epi16(_mm_unpacklo_epi8(v, v), 8)
#define $SUMS_X(v) $SUMS_WIDE(_mm_set1_epi32(v))
#define $SUMS_ADD(s, p, x) _mm_add_epi32(s, _mm_madd_epi16($SUMS_WIDE(_mm_loadl_epi64((const __m128i *)(p))), x))
#define $SUMS_KEEP(p, s) _mm_storeu_si128((__m128i *)(p), s)
#define $SUMS_ROWS 2
#elif $W > 1 && defined(__ARM_NEON) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define $SUMS int32x4_t
#define $SUMS_OF_X int8x16_t
#define $SUMS_ZERO vdupq_n_s32(0)
#define $SUMS_EACH $EACH4
#define $SUMS_X(v) vreinterpretq_s8_s32(vdupq_n_s32(v))
#define $SUMS_ADD(s, p, x) vdotq_s32(s, vld1q_s8(p), x)
#define $SUMS_KEEP(p, s) vst1q_s32(p, s)
#define $SUMS_ROWS 4
#define $SUMS_DONE(p) $SUMS_EACH($SUMS_WHOLE)
#define $SUMS_WHOLE(k) $SUMS_KEEP(sums + 4 * (k), s##k);
#elif $W > 1 && defined(__ARM_NEON)
#include <arm_neon.h>
#define $SUMS int32x4_t
#define $SUMS_OF_X int8x8_t
#define $SUMS_ZERO vdupq_n_s32(0)
#define $SUMS_EACH $EACH8
#define $SUMS_X(v) vreinterpret_s8_s32(vdup_n_s32(v))
#define $SUMS_ADD(s, p, x) vpadalq_s16(s, vmull_s8(vld1_s8(p), x))
#define $SUMS_KEEP(p, s) vst1q_s32(p, s)
#define $SUMS_ROWS 2
#elif $W > 1 && defined(__wasm_simd128__)
#include <wasm_simd128.h>
#define $SUMS v128_t
#define $SUMS_OF_X v128_t
#define $SUMS_ZERO wasm_i32x4_splat(0)
#define $SUMS_EACH $EACH8
#define $SUMS_X(v) wasm_i16x8_extend_low_i8x16(wasm_i32x4_splat(v))
#define $SUMS_ADD(s, p, x) wasm_i32x4_add(s, wasm_i32x4_dot_i16x8(wasm_i16x8_load8x8(p), x))
#define $SUMS_KEEP(p, s) wasm_v128_store(p, s)
#define $SUMS_ROWS 2
#endif
"""

STRIP = """\
/* sums = 16 rows of W times q; W of `words` words, number k of them of the columns from 4 * @ on. */
static $WITHIN void $NAME(const int8_t *w, PARAMETER const int8_t *q, int words, int32_t *sums)
{
#if defined($SUMS_ROWS)
#define $BEGIN(k) $SUMS s##k = $SUMS_ZERO;
#define $TAKE_WORD(k) s##k = $SUMS_ADD(s##k, w + (k) * 4 * $SUMS_ROWS, x);
#define $END(k) $SUMS_KEEP(parts + (k) * 2 * $SUMS_ROWS, s##k);
    $SUMS_EACH($BEGIN)
    for (int k = 0; k < words; ++k, w += 64) {
        int32_t four;
        $memcpy(&four, q + 4 * @, 4);
        const $SUMS_OF_X x = $SUMS_X(four);
        $SUMS_EACH($TAKE_WORD)
    }
#if defined($SUMS_DONE)
    $SUMS_DONE(sums)
#else
    int32_t parts[32];
    $SUMS_EACH($END)
    for (int r = 0; r < 16; ++r)
        sums[r] = parts[2 * r] + parts[2 * r + 1];
#endif
#elif defined(__ARM_FEATURE_DSP) && defined(__GNUC__) && defined(__arm__)
#define $SPREAD(y, z) __asm__("sxtb16 %0, %1" : "=r"(y) : "r"(z))
#define $TURNED(y, z) __asm__("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(z))
#define $TWICE(s, y, z) __asm__("smlad %0, %1, %2, %0" : "+r"(s) : "r"(y), "r"(z))
#define $ROW(k) { \\
        uint32_t u, v; \\
        $memcpy(&v, now + 4 * (k), 4); \\
        $SPREAD(u, v); \\
        $TURNED(v, v); \\
        $TWICE(s##k, u, even); \\
        $TWICE(s##k, v, odd); \\
    }
    for (int r = 0; r < 16; r += 4) {
        int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        const int8_t *now = w + 4 * r;
        for (int k = 0; k < words; ++k, now += 64) {
            uint32_t even, odd;
            $memcpy(&odd, q + 4 * @, 4);
            $SPREAD(even, odd);
            $TURNED(odd, odd);
            $EACH4($ROW)
        }
        sums[r] = s0;
        sums[r + 1] = s1;
        sums[r + 2] = s2;
        sums[r + 3] = s3;
    }
#else
    for (int r = 0; r < 16; ++r) {
        const int8_t *now = w + 4 * r;
        int32_t s = 0;
        for (int k = 0; k < words; ++k, now += 64) {
            const int8_t *const x = q + 4 * @;
            s += now[0] * x[0] + now[1] * x[1] + now[2] * x[2] + now[3] * x[3];
        }
        sums[r] = s;
    }
#endif
}
"""

SCALED = """\
/* y[0..rows) += sums times the scales of their rows and of x. */
static void $scaled(const int32_t *sums, const float *t, float s, float *y, int rows)
{
    int r = 0;
#if $W > 1
    for (; r + $W <= rows; r += $W) {
        $I i;
        $memcpy(&i, sums + r, sizeof i);
        $ST(y + r, $LD(y + r) + __builtin_convertvector(i, $V) * ($LD(t + r) * s));
    }
#endif
    for (; r < rows; ++r)
        y[r] += (float)sums[r] * (t[r] * s);
}
"""

BYTES = """\
/* y[0..rows) += W x, of all weights. */
static $APART void $bytes(const int8_t *w, const float *t, const float *x, int8_t *q, float *y, int columns, int rows)
{
    const float s = $quantise(x, q, columns);
    const int words = (columns + 3) / 4;
    int32_t sums[16];
    for (int r = 0; r < rows; r += 16, w += 64 * words) {
        $all_words(w, q, words, sums);
        $scaled(sums, t + r, s, y + r, rows - r < 16 ? rows - r : 16);
    }
}
"""

WORDS = """\
/* y[0..rows) += W x for each of `gates` parts of y, of the words that are not zero. */
static $APART void $words(const int8_t *w, const $T *index, const float *t, const float *x, int8_t *q, float *y,
                          int columns, int rows, int gates)
{
    const float s = $quantise(x, q, columns);
    int32_t sums[16];
    for (; gates > 0; --gates, y += rows, t += rows) {
        for (int r = 0; r < rows; r += 16) {
            const int count = *index++;
            $some_words(w, index, q, count, sums);
            $scaled(sums, t + r, s, y + r, rows - r < 16 ? rows - r : 16);
            index += count;
            w += 64 * count;
        }
    }
}
"""

GATHERED = """\
/* y[0..rows) += W x for each of `gates` parts of y; a word has four columns of those that a strip has at all. */
static $APART void $gathered(const int8_t *w, const $T *index, const float *t, const float *x, int8_t *q, float *y,
                      int columns, int rows, int gates)
{
    const float s = $quantise(x, q, columns);
    int8_t *const own = q + ((columns + 3) & ~3);
    int32_t sums[16];
    for (; gates > 0; --gates, y += rows, t += rows) {
        for (int r = 0; r < rows; r += 16) {
            const int words = *index++;
            for (int k = 0; k < 4 * words; k += 4, index += 4) {
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
                const uint32_t four = (uint32_t)(uint8_t)q[index[0]] | (uint32_t)(uint8_t)q[index[1]] << 8 |
                                      (uint32_t)(uint8_t)q[index[2]] << 16 | (uint32_t)(uint8_t)q[index[3]] << 24;
                $memcpy(own + k, &four, 4);
#else
                for (int c = 0; c < 4; ++c)
                    own[k + c] = q[index[c]];
#endif
            }
            $all_words(w, own, words, sums);
            $scaled(sums, t + r, s, y + r, rows - r < 16 ? rows - r : 16);
            w += 64 * words;
        }
    }
}
"""


def _strip(name: str, parameter: str, at: str) -> str:
    return STRIP.replace("$NAME", f"${name}").replace("PARAMETER ", parameter).replace("@", at)


def _of_width(text: str, bits: int) -> str:
    """`text` for columns of so many bits."""
    for name in ("words", "some_words", "gathered"):
        text = text.replace(f"${name}(", f"${name}{bits}(")
    return text.replace("$T ", f"uint{bits}_t ")


def _both(name: str, needs: str, text: str) -> dict[str, tuple[tuple[str, ...], str]]:
    """Kernel `name`, and `fixed_NAME` for inputs whose scale is known beforehand."""
    fixed = text.replace("$quantise(x, q, columns)", "$fixed(x, q, columns, inverse)")
    fixed = fixed.replace(f" ${name}(", f" $fixed_{name}(").replace("int columns,", "int columns, float inverse,")
    return {name: ((needs, "quantise"), text), f"fixed_{name}": ((needs, "fixed"), fixed)}


INT8: dict[str, tuple[tuple[str, ...], str]] = {
    "sums": (("each",), VECTORS),
    "narrow": (("sums",), NARROW),
    "quantise": (("narrow",), QUANTISE),
    "fixed": (("narrow",), FIXED),
    "scaled": ((), SCALED),
    "all words": (("sums", "scaled"), _strip("all_words", "", "k")),
    "some words8": (("sums", "scaled"), _strip("some_words8", "const uint8_t *index, ", "index[k]")),
    "some words16": (("sums", "scaled"), _strip("some_words16", "const uint16_t *index, ", "index[k]")),
    **_both("bytes", "all words", BYTES),
    **_both("gathered8", "all words", _of_width(GATHERED, 8)),
    **_both("gathered16", "all words", _of_width(GATHERED, 16)),
    **_both("words8", "some words8", _of_width(WORDS, 8)),
    **_both("words16", "some words16", _of_width(WORDS, 16)),
}

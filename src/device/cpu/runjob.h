/* runjob.h: what a C or C++ kernel may use besides its parameters.
 *
 * A kernel has its natural C signature: `const T *` for `in`, `T *` for `out` and `inout`, scalars by value,
 * `T *` (64-byte aligned, contents undefined) for `local`. It is called once per block.
 * Three lanes (`x3`) are a plain `T *`, three elements side by side; 2, 4, 8 and 16 lanes are vectors.
 */
#ifndef RUNJOB_H
#define RUNJOB_H

#include <stdint.h>
#include <string.h>

/* ---- where this block is ---------------------------------------------------------------------------- */

struct rj_at_ {
    uint32_t block[3];
    uint32_t grid[3];
    uint32_t block_dim[3];
};
#ifdef __cplusplus
#define RJ_THREAD_ thread_local
#else
#define RJ_THREAD_ _Thread_local
#endif
#ifdef RJ_SHIM_
static RJ_THREAD_ struct rj_at_ rj_at_;
#else
/* In an object that runjob does not compile but loads: one place for all its sources, which runjob asks for. The
 * number in the name stands for the layout of `struct rj_at_`. */
#ifdef __cplusplus
extern "C" {
#endif
extern RJ_THREAD_ struct rj_at_ rj_at_;
__attribute__((weak, visibility("default"))) RJ_THREAD_ struct rj_at_ rj_at_;
struct rj_at_ *rj_here_1_(void);
__attribute__((weak, visibility("default"))) struct rj_at_ *rj_here_1_(void) { return &rj_at_; }
#ifdef __cplusplus
}
#endif
#endif

/* The block's place in the grid, the grid in blocks, the block in threads; d = 0 is x. */
__attribute__((unused)) static inline uint32_t rj_block(int d) { return rj_at_.block[d]; }
__attribute__((unused)) static inline uint32_t rj_grid(int d) { return rj_at_.grid[d]; }
__attribute__((unused)) static inline uint32_t rj_block_dim(int d) { return rj_at_.block_dim[d]; }

/* ---- element types ---------------------------------------------------------------------------------- */

typedef double rj_f64;
typedef float rj_f32;
typedef int64_t rj_i64;
typedef int32_t rj_i32;
typedef int16_t rj_i16;
typedef int8_t rj_i8;
typedef uint64_t rj_u64;
typedef uint32_t rj_u32;
typedef uint16_t rj_u16;
typedef uint8_t rj_u8;
#ifdef __cplusplus
typedef bool rj_bool;
#else
typedef _Bool rj_bool;
#endif

/* bfloat16: the high half of a float. */
typedef struct {
    uint16_t bits;
} rj_bf16;

__attribute__((unused)) static inline float rj_bf16_to_f32(rj_bf16 x) {
    uint32_t bits = (uint32_t)x.bits << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Rounds to nearest, ties to even; NaN stays NaN. */
__attribute__((unused)) static inline rj_bf16 rj_f32_to_bf16(float f) {
    uint32_t bits;
    rj_bf16 x;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        x.bits = (uint16_t)((bits >> 16) | 0x40u);
    else
        x.bits = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    return x;
}

/* 8-bit floats (OCP OFP8). e4m3 has no infinities and one NaN per sign. Conversions round to nearest, ties to
 * even; what is too large becomes NaN in e4m3 and infinity in e5m2, as in ml_dtypes. */
typedef struct {
    uint8_t bits;
} rj_f8e4m3;
typedef struct {
    uint8_t bits;
} rj_f8e5m2;

__attribute__((unused)) static inline float rj_f8e4m3_to_f32(rj_f8e4m3 x) {
    uint32_t sign = (uint32_t)(x.bits & 0x80u) << 24, rest = x.bits & 0x7fu, bits;
    float f;
    if (rest == 0x7fu) {
        bits = 0x7fc00000u;
    } else if (rest >= 0x8u) {
        bits = (rest << 20) + 0x3c000000u;
    } else {
        f = (float)rest * 0.001953125f; /* 2^-9, the smallest step */
        memcpy(&bits, &f, sizeof bits);
    }
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

__attribute__((unused)) static inline rj_f8e4m3 rj_f32_to_f8e4m3(float f) {
    uint32_t bits, sign, rest;
    rj_f8e4m3 x;
    memcpy(&bits, &f, sizeof bits);
    sign = (bits >> 24) & 0x80u;
    rest = bits & 0x7fffffffu;
    if (rest > 0x43e80000u) { /* 464, the middle of 448 and what would be 480, is even at 448 */
        x.bits = (uint8_t)(sign | 0x7fu);
    } else if (rest >= 0x3c800000u) {
        rest -= 0x3c000000u;
        x.bits = (uint8_t)(sign | ((rest + 0x7ffffu + ((rest >> 20) & 1u)) >> 20));
    } else {
        float magnitude;
        uint32_t sum;
        memcpy(&magnitude, &rest, sizeof magnitude);
        magnitude += 16384.0f; /* the unit in its last place is 2^-9, the smallest step */
        memcpy(&sum, &magnitude, sizeof sum);
        x.bits = (uint8_t)(sign | (sum - 0x46800000u));
    }
    return x;
}

__attribute__((unused)) static inline float rj_f8e5m2_to_f32(rj_f8e5m2 x) {
    uint32_t sign = (uint32_t)(x.bits & 0x80u) << 24, rest = x.bits & 0x7fu, bits;
    float f;
    if (rest > 0x7cu) {
        bits = 0x7fc00000u;
    } else if (rest == 0x7cu) {
        bits = 0x7f800000u;
    } else if (rest >= 0x4u) {
        bits = (rest << 21) + 0x38000000u;
    } else {
        f = (float)rest * 0.0000152587890625f; /* 2^-16, the smallest step */
        memcpy(&bits, &f, sizeof bits);
    }
    bits |= sign;
    memcpy(&f, &bits, sizeof f);
    return f;
}

__attribute__((unused)) static inline rj_f8e5m2 rj_f32_to_f8e5m2(float f) {
    uint32_t bits, sign, rest;
    rj_f8e5m2 x;
    memcpy(&bits, &f, sizeof bits);
    sign = (bits >> 24) & 0x80u;
    rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        x.bits = (uint8_t)(sign | 0x7eu);
    } else if (rest >= 0x47700000u) { /* 61440, the middle of 57344 and what would be 65536 */
        x.bits = (uint8_t)(sign | 0x7cu);
    } else if (rest >= 0x38800000u) {
        rest -= 0x38000000u;
        x.bits = (uint8_t)(sign | ((rest + 0xfffffu + ((rest >> 21) & 1u)) >> 21));
    } else {
        float magnitude;
        uint32_t sum;
        memcpy(&magnitude, &rest, sizeof magnitude);
        magnitude += 128.0f; /* the unit in its last place is 2^-16, the smallest step */
        memcpy(&sum, &magnitude, sizeof sum);
        x.bits = (uint8_t)(sign | (sum - 0x43000000u));
    }
    return x;
}

/* IEEE binary16: the compiler's `_Float16` where it has one, else its bits. */
#if defined(__FLT16_MANT_DIG__) && (!defined(__cplusplus) || defined(__clang__) || __GNUC__ >= 13)
#define RJ_HAS_F16 1
typedef _Float16 rj_f16;
typedef _Float16 rj_f16_lane_;
__attribute__((unused)) static inline float rj_f16_to_f32(rj_f16 x) { return (float)x; }
__attribute__((unused)) static inline rj_f16 rj_f32_to_f16(float f) { return (rj_f16)f; }
#else
#define RJ_HAS_F16 0
typedef struct {
    uint16_t bits;
} rj_f16;
typedef uint16_t rj_f16_lane_;

__attribute__((unused)) static inline float rj_f16_to_f32(rj_f16 x) {
    uint32_t sign = (uint32_t)(x.bits & 0x8000u) << 16, rest = x.bits & 0x7fffu, bits;
    float f;
    if (rest >= 0x7c00u) {
        bits = sign | 0x7f800000u | ((rest & 0x3ffu) << 13);
        memcpy(&f, &bits, sizeof f);
    } else if (rest >= 0x400u) {
        bits = sign | ((rest << 13) + 0x38000000u);
        memcpy(&f, &bits, sizeof f);
    } else {
        f = (float)rest * 0x1p-24f;
        if (sign)
            f = -f;
    }
    return f;
}

/* Rounds to nearest, ties to even; NaN stays NaN. */
__attribute__((unused)) static inline rj_f16 rj_f32_to_f16(float f) {
    uint32_t bits, sign, rest;
    rj_f16 x;
    memcpy(&bits, &f, sizeof bits);
    sign = (bits >> 16) & 0x8000u;
    rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) {
        x.bits = (uint16_t)(sign | 0x7e00u);
    } else if (rest >= 0x477ff000u) {
        x.bits = (uint16_t)(sign | 0x7c00u);
    } else if (rest >= 0x38800000u) {
        rest -= 0x38000000u;
        x.bits = (uint16_t)(sign | ((rest + 0xfffu + ((rest >> 13) & 1u)) >> 13));
    } else {
        float magnitude;
        uint32_t sum;
        memcpy(&magnitude, &rest, sizeof magnitude);
        magnitude += 0.5f; /* the unit in the last place of 0.5 is 2^-24, f16's smallest step */
        memcpy(&sum, &magnitude, sizeof sum);
        x.bits = (uint16_t)(sign | (sum - 0x3f000000u));
    }
    return x;
}
#endif

/* ---- lanes ------------------------------------------------------------------------------------------ */

/* Vectors of 2, 4, 8 and 16 lanes: `v[i]`, `v + w`, `v * 2.0f` work as with any compiler vector. Alignment is
 * at most 64 bytes, what every tensor has. `bool` lanes are uint8_t, `bf16` and `f8` lanes the bits. */
#define RJ_LANES_(T, NAME)                                                                           \
    typedef T NAME##x2 __attribute__((vector_size(2 * sizeof(T)), may_alias));                       \
    typedef T NAME##x4 __attribute__((vector_size(4 * sizeof(T)), may_alias));                       \
    typedef T NAME##x8 __attribute__((vector_size(8 * sizeof(T)), may_alias));                       \
    typedef T NAME##x16 __attribute__((vector_size(16 * sizeof(T)), aligned(sizeof(T) < 4 ? 16 * sizeof(T) : 64), may_alias))

RJ_LANES_(double, rj_f64);
RJ_LANES_(float, rj_f32);
RJ_LANES_(rj_f16_lane_, rj_f16);
RJ_LANES_(uint16_t, rj_bf16);
RJ_LANES_(uint8_t, rj_f8e4m3);
RJ_LANES_(uint8_t, rj_f8e5m2);
RJ_LANES_(int64_t, rj_i64);
RJ_LANES_(int32_t, rj_i32);
RJ_LANES_(int16_t, rj_i16);
RJ_LANES_(int8_t, rj_i8);
RJ_LANES_(uint64_t, rj_u64);
RJ_LANES_(uint32_t, rj_u32);
RJ_LANES_(uint16_t, rj_u16);
RJ_LANES_(uint8_t, rj_u8);
RJ_LANES_(uint8_t, rj_bool);

#undef RJ_LANES_

#endif

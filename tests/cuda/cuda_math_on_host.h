// CUDA's mathematics on the host. Included by `cuda_on_host.h`.
#pragma once

#define SIM_UNARY(X)                                                                                                        \
    X(sqrt) X(cbrt) X(exp) X(exp2) X(exp10) X(expm1) X(log) X(log2) X(log10) X(log1p) X(sin) X(cos) X(tan) X(asin) X(acos)  \
    X(atan) X(sinh) X(cosh) X(tanh) X(asinh) X(acosh) X(atanh) X(erf) X(erfc) X(tgamma) X(lgamma) X(floor) X(ceil) X(trunc) \
    X(round) X(rint) X(nearbyint) X(fabs) X(logb)
#define SIM_BINARY(X) X(pow) X(fmod) X(atan2) X(hypot) X(fmin) X(fmax) X(fdim) X(copysign) X(remainder) X(nextafter)
#define SIM_DECLARE_1(name)              \
    extern "C" double name(double);      \
    extern "C" float name##f(float);     \
    static inline float name(float x) { return name##f(x); }
#define SIM_DECLARE_2(name)                      \
    extern "C" double name(double, double);      \
    extern "C" float name##f(float, float);      \
    static inline float name(float x, float y) { return name##f(x, y); }
SIM_UNARY(SIM_DECLARE_1)
SIM_BINARY(SIM_DECLARE_2)
extern "C" {
double fma(double, double, double);
float fmaf(float, float, float);
double ldexp(double, int);
float ldexpf(float, int);
double frexp(double, int *);
float frexpf(float, int *);
double modf(double, double *);
float modff(float, float *);
void sincosf(float, float *, float *);
void sincos(double, double *, double *);
long lrintf(float);
long lrint(double);
long lroundf(float);
long lround(double);
}
static inline float fma(float a, float b, float c) { return fmaf(a, b, c); }
static inline float ldexp(float a, int b) { return ldexpf(a, b); }
static inline double pow(double x, int n) { return pow(x, (double)n); }
static inline float pow(float x, int n) { return powf(x, (float)n); }
static inline double pow(float x, double y) { return pow((double)x, y); }
static inline double pow(double x, float y) { return pow(x, (double)y); }
static inline void sincos(float x, float *s, float *c) { sincosf(x, s, c); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float rcbrtf(float x) { return 1.0f / cbrtf(x); }
static inline double rcbrt(double x) { return 1.0 / cbrt(x); }
static inline float sinpif(float x) { return (float)sin(x * 3.14159265358979323846); }
static inline float cospif(float x) { return (float)cos(x * 3.14159265358979323846); }
static inline double sinpi(double x) { return sin(x * 3.14159265358979323846); }
static inline double cospi(double x) { return cos(x * 3.14159265358979323846); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
static inline float fdividef(float a, float b) { return a / b; }
static inline float norm3df(float a, float b, float c) { return sqrtf(a * a + b * b + c * c); }
static inline bool isnan(float x) { return __builtin_isnan(x); }
static inline bool isnan(double x) { return __builtin_isnan(x); }
static inline bool isinf(float x) { return __builtin_isinf(x); }
static inline bool isinf(double x) { return __builtin_isinf(x); }
static inline bool isfinite(float x) { return __builtin_isfinite(x); }
static inline bool isfinite(double x) { return __builtin_isfinite(x); }
static inline bool signbit(float x) { return __builtin_signbit(x); }
static inline bool signbit(double x) { return __builtin_signbit(x); }

extern "C" int abs(int);
extern "C" long labs(long);
extern "C" long long llabs(long long);
static inline long abs(long x) { return labs(x); }
static inline long long abs(long long x) { return llabs(x); }
static inline float abs(float x) { return fabsf(x); }
static inline double abs(double x) { return fabs(x); }

#define SIM_LEAST(type)                                                      \
    static inline constexpr type min(type a, type b) { return b < a ? b : a; } \
    static inline constexpr type max(type a, type b) { return a < b ? b : a; }
SIM_LEAST(int)
SIM_LEAST(unsigned)
SIM_LEAST(long)
SIM_LEAST(unsigned long)
SIM_LEAST(long long)
SIM_LEAST(unsigned long long)
// Of two kinds of numbers the one that holds more.
#define SIM_MIXED(a_type, b_type, type)                                                  \
    static inline constexpr type min(a_type a, b_type b) { return min((type)a, (type)b); } \
    static inline constexpr type min(b_type a, a_type b) { return min((type)a, (type)b); } \
    static inline constexpr type max(a_type a, b_type b) { return max((type)a, (type)b); } \
    static inline constexpr type max(b_type a, a_type b) { return max((type)a, (type)b); }
SIM_MIXED(int, unsigned, unsigned)
SIM_MIXED(long, unsigned long, unsigned long)
SIM_MIXED(long long, unsigned long long, unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }
static inline double min(float a, double b) { return fmin(a, b); }
static inline double max(float a, double b) { return fmax(a, b); }
static inline double min(double a, float b) { return fmin(a, b); }
static inline double max(double a, float b) { return fmax(a, b); }

#define SIM_FAST(name, of) static inline float name(float x) { return of; }
SIM_FAST(__expf, expf(x))
SIM_FAST(__exp10f, exp10f(x))
SIM_FAST(__logf, logf(x))
SIM_FAST(__log2f, log2f(x))
SIM_FAST(__log10f, log10f(x))
SIM_FAST(__sinf, sinf(x))
SIM_FAST(__cosf, cosf(x))
SIM_FAST(__tanf, tanf(x))
SIM_FAST(__tanhf, tanhf(x))
SIM_FAST(__saturatef, x > 0.0f ? x < 1.0f ? x : 1.0f : 0.0f)
SIM_FAST(__frcp_rn, 1.0f / x)
SIM_FAST(__fsqrt_rn, sqrtf(x))
SIM_FAST(__frsqrt_rn, 1.0f / sqrtf(x))
static inline void __sincosf(float x, float *s, float *c) { sincosf(x, s, c); }
static inline float __powf(float x, float y) { return powf(x, y); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

template <typename SimTo, typename SimFrom> static inline SimTo sim_bits(SimFrom from) {
    static_assert(sizeof(SimTo) == sizeof(SimFrom));
    SimTo to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __float_as_int(float x) { return sim_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return sim_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return sim_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return sim_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return sim_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return sim_bits<double>(x); }

// Conversions clamp, and make zero of what is no number.
template <typename SimTo> static inline SimTo sim_clamp(double x, SimTo least, SimTo most) {
    return x != x ? 0 : x <= (double)least ? least : x >= (double)most ? most : (SimTo)x;
}
#define SIM_ROUNDED(suffix, of)                                                                                                     \
    static inline int __float2int_##suffix(float x) { return sim_clamp<int>(of(x), -0x7fffffff - 1, 0x7fffffff); }                  \
    static inline unsigned __float2uint_##suffix(float x) { return sim_clamp<unsigned>(of(x), 0, ~0u); }                            \
    static inline long long __float2ll_##suffix(float x) { return sim_clamp<long long>(of(x), -0x7fffffffffffffffll - 1, 0x7fffffffffffffffll); } \
    static inline int __double2int_##suffix(double x) { return sim_clamp<int>(of(x), -0x7fffffff - 1, 0x7fffffff); }                \
    static inline unsigned __double2uint_##suffix(double x) { return sim_clamp<unsigned>(of(x), 0, ~0u); }                          \
    static inline long long __double2ll_##suffix(double x) { return sim_clamp<long long>(of(x), -0x7fffffffffffffffll - 1, 0x7fffffffffffffffll); }
SIM_ROUNDED(rn, rint)
SIM_ROUNDED(rz, trunc)
SIM_ROUNDED(rd, floor)
SIM_ROUNDED(ru, ceil)
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline float __ull2float_rn(unsigned long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return x; }
static inline double __uint2double_rn(unsigned x) { return x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline float __double2float_rn(double x) { return (float)x; }

static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; ++i) r |= (x >> i & 1) << (31 - i);
    return r;
}
static inline unsigned long long __brevll(unsigned long long x) { return (unsigned long long)__brev((unsigned)x) << 32 | __brev((unsigned)(x >> 32)); }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    unsigned long long all = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; ++i) r |= (unsigned)(all >> 8 * (s >> 4 * i & 7) & 255) << 8 * i;
    return r;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) { return (unsigned)((((unsigned long long)high << 32 | low) << (shift & 31)) >> 32); }
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) { return (unsigned)(((unsigned long long)high << 32 | low) >> (shift & 31)); }
static inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
static inline unsigned __umul24(unsigned a, unsigned b) { return (a & 0xffffff) * (b & 0xffffff); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned long long)((unsigned __int128)a * b >> 64); }
static inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
    return c;
}

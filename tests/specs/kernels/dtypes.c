#include <runjob.h>
#include <stdbool.h>

// Every dtype through a kernel, last element first, so that the element size matters.
#define REVERSE(name, type)                                                                            \
    void name(const type *x, type *y, uint32_t n) {                                                    \
        for (uint32_t i = n; i-- > 0;)                                                                 \
            y[i] = x[i];                                                                               \
    }
REVERSE(reverse_f64, double)
REVERSE(reverse_f32, float)
REVERSE(reverse_f16, rj_f16)
REVERSE(reverse_bf16, rj_bf16)
REVERSE(reverse_f8e4m3, rj_f8e4m3)
REVERSE(reverse_f8e5m2, rj_f8e5m2)
REVERSE(reverse_i64, int64_t)
REVERSE(reverse_i32, int32_t)
REVERSE(reverse_i16, int16_t)
REVERSE(reverse_i8, int8_t)
REVERSE(reverse_u64, uint64_t)
REVERSE(reverse_u32, uint32_t)
REVERSE(reverse_u16, uint16_t)
REVERSE(reverse_u8, uint8_t)
REVERSE(reverse_bool, bool)

// One scalar of every kind that C passes differently.
void scalars(double *y, double a, float b, int64_t c, int32_t d, int16_t e, int8_t f, uint64_t g, uint32_t h,
             uint16_t i, uint8_t j, bool k) {
    y[0] = a;
    y[1] = b;
    y[2] = (double)c;
    y[3] = d;
    y[4] = e;
    y[5] = f;
    y[6] = (double)g;
    y[7] = h;
    y[8] = i;
    y[9] = j;
    y[10] = k;
}

void scalar_f16(float *y, rj_f16 a) { y[0] = (float)a; }

#include <runjob.h>

// The bits that the header's conversions give.
#define ENCODE(name, bits_type)                                                                        \
    void encode_##name(const float *x, bits_type *y, uint32_t n) {                                     \
        for (uint32_t i = 0; i < n; ++i) {                                                             \
            rj_##name value = rj_f32_to_##name(x[i]);                                                  \
            memcpy(&y[i], &value, sizeof value);                                                       \
        }                                                                                              \
    }
ENCODE(f16, uint16_t)
ENCODE(bf16, uint16_t)
ENCODE(f8e4m3, uint8_t)
ENCODE(f8e5m2, uint8_t)

#define DECODE(name)                                                                                   \
    void decode_##name(const uint8_t *x, uint32_t *y, uint32_t n) {                                    \
        for (uint32_t i = 0; i < n; ++i) {                                                             \
            rj_##name value = {x[i]};                                                                  \
            float f = rj_##name##_to_f32(value);                                                       \
            memcpy(&y[i], &f, sizeof f);                                                               \
        }                                                                                              \
    }
DECODE(f8e4m3)
DECODE(f8e5m2)

// y += a * x, a block of `TILE` elements at a time.
#include <algorithm>
#include <runjob.h>

namespace {

template <class T>
void axpy(const T *x, T *y, T a, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; ++i)
        y[i] += a * x[i];
}

} // namespace

extern "C" void saxpy(const float *x, float *y, float a, uint32_t n) {
    uint32_t from = rj_block(0) * TILE;
    axpy(x, y, a, from, std::min<uint32_t>(from + TILE, n));
}

// An overload: the one with the types of `params` is called.
void scale(double *y, double a, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = -a;
}

void scale(float *y, float a, uint32_t n) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] *= a;
}

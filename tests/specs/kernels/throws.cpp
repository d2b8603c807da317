#include <cstdint>
#include <stdexcept>

// Every element is right, then an exception leaves the kernel in round 3.
void throws(const float *x, float *y, uint32_t n, uint32_t round) {
    for (uint32_t i = 0; i < n; ++i)
        y[i] = 2.0f * x[i];
    if (round == 3)
        throw std::runtime_error("no more");
}

// Kernels of the baseline, in a translation unit of their own: called through pointers, never inlined.
#pragma once
#include <stdint.h>

typedef void add_fn(const float *x, const float *y, float *z, uint64_t n);
typedef void affine_fn(const float *x, float *y, float scale, float shift, uint64_t n);
typedef void matmul_fn(const float *a, const float *b, float *c, uint64_t m, uint64_t n, uint64_t k);

add_fn add_kernel;
affine_fn affine_kernel;
matmul_fn matmul_kernel;

// The product in f64 of f32 rows with f64 columns: what the expectation of a matmul costs.
void expected_matmul(const float *a, const double *b, double *c, uint64_t m, uint64_t n, uint64_t k);

// Kernels of the baseline, in a translation unit of their own: called through pointers, never inlined.
#pragma once
#include <stdint.h>

typedef void add_fn(const float *x, const float *y, float *z, uint64_t n);
typedef void affine_fn(const float *x, float *y, float scale, float shift, uint64_t n);
typedef void matmul_fn(const float *a, const float *b, float *c, uint64_t m, uint64_t n, uint64_t k);

add_fn add_kernel;
affine_fn affine_kernel;
matmul_fn matmul_kernel;

// The expectation of a matmul: the product in f64. b is packed once into panels of columns, since rows that are
// 4 KiB apart would all want the same few lines of the cache.
void pack_panels(const float *b, double *panels, uint64_t n, uint64_t k);
void expected_matmul(const double *a, const double *panels, double *c, uint64_t m, uint64_t n, uint64_t k);

#include <math.h>
#include <runjob.h>

void append(const float *token, float *cache, uint32_t pos, uint32_t dim) {
    for (uint32_t d = 0; d < dim; d++)
        cache[(size_t)pos * dim + d] = token[d];
}

// The scores of one block's rows.
void score(const float *q, const float *cache, float *scores, uint32_t len, uint32_t dim) {
    uint32_t first = rj_block(0) * rj_block_dim(0);
    for (uint32_t r = first; r < len && r < first + rj_block_dim(0); r++) {
        scores[r] = 0.0f;
        for (uint32_t d = 0; d < dim; d++)
            scores[r] += q[d] * cache[(size_t)r * dim + d];
    }
}

// The mean of the first `len` rows, weighted with the softmax of their scores.
void average(const float *scores, const float *cache, float *o, uint32_t len, uint32_t dim) {
    float largest = scores[0], sum = 0.0f;
    for (uint32_t r = 1; r < len; r++)
        largest = fmaxf(largest, scores[r]);
    for (uint32_t d = 0; d < dim; d++)
        o[d] = 0.0f;
    for (uint32_t r = 0; r < len; r++) {
        float weight = expf(scores[r] - largest);
        sum += weight;
        for (uint32_t d = 0; d < dim; d++)
            o[d] += weight * cache[(size_t)r * dim + d];
    }
    for (uint32_t d = 0; d < dim; d++)
        o[d] /= sum;
}

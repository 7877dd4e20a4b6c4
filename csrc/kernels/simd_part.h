// The end of a row that does not fill a vector. Included after a form's Simd.
#pragma once

#include <cstring>

#include "kernels/simd_unroll.h"

namespace rustasr::kernels {
namespace {

RUSTASR_INLINE Simd::V load_part(const float* p, int64_t n, float rest) {
    alignas(64) float part[Simd::W];
    for (int i = 0; i < Simd::W; i++) part[i] = i < n ? p[i] : rest;
    return Simd::load(part);
}

RUSTASR_INLINE void store_part(float* p, int64_t n, Simd::V x) {
    alignas(64) float part[Simd::W];
    Simd::store(part, x);
    memcpy(p, part, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace
}  // namespace rustasr::kernels

// Loops over registers: the arrays of a micro-kernel live in registers only when its loops are unrolled.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
#define RUSTASR_UNROLL _Pragma("GCC unroll 16")
#elif defined(__clang__)
#define RUSTASR_UNROLL _Pragma("unroll")
#else
#define RUSTASR_UNROLL
#endif

#if defined(_MSC_VER)
#define RUSTASR_INLINE __forceinline
#else
#define RUSTASR_INLINE inline __attribute__((always_inline))
#endif

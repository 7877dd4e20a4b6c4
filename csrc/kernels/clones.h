#pragma once
// RUSTASR_CLONES compiles a plain function once per instruction set and lets the loader choose: for small
// loops that the compiler vectorises well by itself. Where compilers lack it, the baseline form is built.

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__AVX512F__) && !defined(__SANITIZE_ADDRESS__)
#define RUSTASR_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define RUSTASR_CLONES
#endif

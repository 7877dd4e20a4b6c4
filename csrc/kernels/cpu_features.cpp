// Sources: Intel SDM volume 2, CPUID leaves 1 and 7 (subleaves 0 and 1) and volume 1 §13 (XCR0);
// Linux hwcap.h for AArch64 (HWCAP_ASIMDDP, HWCAP2_I8MM); Apple's sysctl hw.optional.arm.*.
#include "kernels/cpu_features.h"

#if defined(__x86_64__) || defined(_M_X64)
#define RUSTASR_CPU_X86 1
#include <cstdint>
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define RUSTASR_CPU_ARM64 1
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#endif
#endif

namespace rustasr::kernels {
namespace {

#if defined(RUSTASR_CPU_X86)

struct Leaf {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(uint32_t leaf, uint32_t subleaf) {
    Leaf r;
#if defined(_MSC_VER) && !defined(__clang__)
    int out[4];
    __cpuidex(out, static_cast<int>(leaf), static_cast<int>(subleaf));
    r.eax = static_cast<uint32_t>(out[0]);
    r.ebx = static_cast<uint32_t>(out[1]);
    r.ecx = static_cast<uint32_t>(out[2]);
    r.edx = static_cast<uint32_t>(out[3]);
#else
    __cpuid_count(leaf, subleaf, r.eax, r.ebx, r.ecx, r.edx);
#endif
    return r;
}

// XCR0: which register files the operating system saves. Only valid where CPUID.1:ECX.OSXSAVE is set.
uint64_t saved_state() {
#if defined(_MSC_VER) && !defined(__clang__)
    return _xgetbv(0);
#else
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
#endif
}

bool bit(uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

CpuFeatures detect() {
    CpuFeatures f;
    const uint32_t last = cpuid(0, 0).eax;
    if (last < 7) return f;
    const Leaf one = cpuid(1, 0);
    if (!bit(one.ecx, 27)) return f;  // OSXSAVE
    const uint64_t state = saved_state();
    const bool saves_ymm = (state & 0x06) == 0x06;
    const bool saves_zmm = (state & 0xe6) == 0xe6;

    const Leaf seven = cpuid(7, 0);
    const Leaf seven_one = seven.eax >= 1 ? cpuid(7, 1) : Leaf{};
    const bool fma = bit(one.ecx, 12), avx = bit(one.ecx, 28), f16c = bit(one.ecx, 29);
    f.avx2 = saves_ymm && avx && fma && f16c && bit(seven.ebx, 5);
    f.avxvnni = f.avx2 && bit(seven_one.eax, 4);
    f.avx512 = f.avx2 && saves_zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) &&
               bit(seven.ebx, 31);
    f.avx512vnni = f.avx512 && bit(seven.ecx, 11);
    f.avx512bf16 = f.avx512 && bit(seven_one.eax, 5);
    return f;
}

#elif defined(RUSTASR_CPU_ARM64)

#if defined(__APPLE__)
bool has(const char* name) {
    int value = 0;
    size_t size = sizeof(value);
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}
#endif

CpuFeatures detect() {
    CpuFeatures f;
    f.neon = true;
#if defined(__linux__)
    f.neon_dotprod = (getauxval(AT_HWCAP) & (1ul << 20)) != 0;
    f.neon_i8mm = (getauxval(AT_HWCAP2) & (1ul << 13)) != 0;
#elif defined(__APPLE__)
    f.neon_dotprod = has("hw.optional.arm.FEAT_DotProd");
    f.neon_i8mm = has("hw.optional.arm.FEAT_I8MM");
#elif defined(_WIN32)
    f.neon_dotprod = IsProcessorFeaturePresent(43) != 0;  // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE
#endif
    return f;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}

}  // namespace rustasr::kernels

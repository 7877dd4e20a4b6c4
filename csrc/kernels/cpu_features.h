// What the processor can do, asked at run time. The one place with platform code for it.
#pragma once

namespace rustasr::kernels {

struct CpuFeatures {
    // x86. Each one also says that the operating system saves the registers that it needs.
    bool avx2 = false;        // with FMA and F16C, which every AVX2 kernel here uses
    bool avxvnni = false;     // the 256-bit VEX form of VNNI, with AVX2
    bool avx512 = false;      // F, BW, DQ and VL
    bool avx512vnni = false;  // with avx512
    bool avx512bf16 = false;  // with avx512
    // ARM
    bool neon = false;  // always on AArch64
    bool neon_dotprod = false;
    bool neon_i8mm = false;
};

// Asked once; the same object for the life of the process.
const CpuFeatures& cpu_features();

}  // namespace rustasr::kernels

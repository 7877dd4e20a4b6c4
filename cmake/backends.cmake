# The accelerators: the only file that names a vendor. Each option switches one ggml backend on; the code asks
# ggml's registry which devices exist.
#
#   pip install . -C cmake.define.RUSTASR_CUDA=ON

option(RUSTASR_CUDA "NVIDIA GPUs (needs the CUDA toolkit)" OFF)
option(RUSTASR_VULKAN "Vulkan GPUs (needs the Vulkan SDK with glslc)" OFF)
if(APPLE)
  option(RUSTASR_METAL "Apple GPUs" ON)
else()
  option(RUSTASR_METAL "Apple GPUs" OFF)
endif()

set(GGML_CUDA ${RUSTASR_CUDA} CACHE BOOL "set by rustasr" FORCE)
set(GGML_VULKAN ${RUSTASR_VULKAN} CACHE BOOL "set by rustasr" FORCE)
set(GGML_METAL ${RUSTASR_METAL} CACHE BOOL "set by rustasr" FORCE)

if(RUSTASR_CUDA)
  # Speech models keep K and V in F16: one pair of flash-attention types instead of all, a third of the build.
  set(GGML_CUDA_FA_QUANTS "f16-f16" CACHE STRING "K-V type pairs of flash attention")
  set(GGML_CUDA_NCCL OFF CACHE BOOL "one device computes a model")
  # Where the packages nvidia-cublas and nvidia-cuda-runtime put their libraries, seen from the package folder.
  set(RUSTASR_BACKEND_RPATH "../nvidia/cu13/lib" "../nvidia/cublas/lib" "../nvidia/cuda_runtime/lib")
endif()
if(RUSTASR_METAL)
  # The shaders travel inside the library: a wheel has no other place for them.
  set(GGML_METAL_EMBED_LIBRARY ON CACHE BOOL "set by rustasr" FORCE)
endif()

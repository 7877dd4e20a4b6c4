# rustasr_core: everything but the Python binding, linked by the module and by the C++ tests.

add_library(rustasr_core STATIC)
file(GLOB _core_sources CONFIGURE_DEPENDS
     csrc/core/*.cpp csrc/frontend/*.cpp csrc/nn/*.cpp csrc/decode/*.cpp csrc/models/*.cpp)
file(GLOB _kernel_sources CONFIGURE_DEPENDS csrc/kernels/*.cpp)
target_sources(rustasr_core PRIVATE ${_core_sources})
rustasr_add_kernels(rustasr_core ${_kernel_sources})

target_include_directories(rustasr_core PUBLIC csrc)
target_link_libraries(rustasr_core PUBLIC rustasr::ggml PRIVATE rustasr_options)
find_package(Threads REQUIRED)
target_link_libraries(rustasr_core PUBLIC Threads::Threads)
target_compile_definitions(rustasr_core PUBLIC RUSTASR_VERSION="${RUSTASR_VERSION}"
                           $<$<NOT:$<BOOL:${RUSTASR_STATIC}>>:RUSTASR_BACKEND_DL=1>)
set_target_properties(rustasr_core PROPERTIES POSITION_INDEPENDENT_CODE ON LINKER_LANGUAGE CXX
                      CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)

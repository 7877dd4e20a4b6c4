# Provides the target `rustasr::ggml`, and RUSTASR_GGML_LICENSE (the licence text that the wheel must carry).
#
# Three sources, in this order:
#   1. GGML_SOURCE_DIR (CMake variable or environment): a ggml tree on this machine;
#   2. RUSTASR_SYSTEM_GGML=ON: an installed ggml, found with find_package;
#   3. the pinned sdist of cmake/ggml-pin.txt, fetched with pip, checked against its sha256, and kept in a cache
#      outside the build folder so that build folders and compiler caches see one stable path.

set(GGML_SOURCE_DIR "$ENV{GGML_SOURCE_DIR}" CACHE PATH "An existing ggml source tree (empty: the pinned one)")
option(RUSTASR_SYSTEM_GGML "Use an installed ggml (find_package)" OFF)

set(_pin_file "${CMAKE_CURRENT_LIST_DIR}/ggml-pin.txt")
file(STRINGS "${_pin_file}" _pin LIMIT_COUNT 1)
if(NOT _pin MATCHES "^([a-z-]+)==([0-9.]+) --hash=sha256:([0-9a-f]+)$")
  message(FATAL_ERROR "ggml: ${_pin_file}: expected `name==version --hash=sha256:...`, found `${_pin}`")
endif()
set(_pin_version "${CMAKE_MATCH_2}")
set(_pin_sha256 "${CMAKE_MATCH_3}")
string(REPLACE "-" "_" _pin_sdist "${CMAKE_MATCH_1}")
string(APPEND _pin_sdist "-${_pin_version}")

# The folder that survives build folders: RUSTASR_CACHE, else the platform's cache folder.
function(rustasr_cache_dir out)
  if(DEFINED ENV{RUSTASR_CACHE} AND NOT "$ENV{RUSTASR_CACHE}" STREQUAL "")
    set(_dir "$ENV{RUSTASR_CACHE}")
  elseif(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(_dir "$ENV{XDG_CACHE_HOME}/rustasr")
  elseif(WIN32 AND DEFINED ENV{LOCALAPPDATA})
    set(_dir "$ENV{LOCALAPPDATA}/rustasr")
  elseif(DEFINED ENV{HOME})
    set(_dir "$ENV{HOME}/.cache/rustasr")
  else()
    set(_dir "${CMAKE_BINARY_DIR}/_cache")
  endif()
  file(TO_CMAKE_PATH "${_dir}" _dir)
  set(${out} "${_dir}" PARENT_SCOPE)
endfunction()

# Downloads the pinned sdist into `root` and keeps ggml and its licence of it.
function(rustasr_fetch_ggml root)
  message(STATUS "ggml: fetching ${_pin_sdist} into ${root}")
  # pip asks the sdist for its metadata; its build backend is ours (scikit-build-core), hence no isolation.
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -m pip download --quiet --disable-pip-version-check --no-input --no-deps
            --no-build-isolation --no-binary :all: --require-hashes -r "${_pin_file}" -d "${root}"
    RESULT_VARIABLE _rc ERROR_VARIABLE _err)
  set(_archive "${root}/${_pin_sdist}.tar.gz")
  if(NOT _rc EQUAL 0 OR NOT EXISTS "${_archive}")
    message(FATAL_ERROR "ggml: `${Python_EXECUTABLE} -m pip download` failed (${_rc}):\n${_err}\n"
                        "It needs pip and scikit-build-core in that Python, and a package index. Without one, "
                        "give a ggml source tree: GGML_SOURCE_DIR=/path (environment or -D).")
  endif()
  file(SHA256 "${_archive}" _sha256)
  if(NOT _sha256 STREQUAL _pin_sha256)
    message(FATAL_ERROR "ggml: ${_archive}: expected sha256 ${_pin_sha256}, found ${_sha256}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${_archive}" DESTINATION "${root}"
       PATTERNS "${_pin_sdist}/vendor/llama.cpp/ggml/*" "${_pin_sdist}/vendor/llama.cpp/LICENSE")
  file(REMOVE "${_archive}")
  file(WRITE "${root}/.complete" "${_sha256}\n")
endfunction()

if(NOT GGML_SOURCE_DIR AND RUSTASR_SYSTEM_GGML)
  find_package(ggml REQUIRED)
  add_library(rustasr::ggml ALIAS ggml::ggml)
  return()
endif()

if(GGML_SOURCE_DIR)
  set(_ggml_tree "${GGML_SOURCE_DIR}")
else()
  rustasr_cache_dir(_cache)
  string(SUBSTRING "${_pin_sha256}" 0 12 _sha12)
  set(_root "${_cache}/${_pin_sdist}-${_sha12}")
  set(_ggml_tree "${_root}/${_pin_sdist}/vendor/llama.cpp/ggml")
  if(NOT EXISTS "${_root}/.complete")
    file(MAKE_DIRECTORY "${_root}")
    file(LOCK "${_root}" DIRECTORY GUARD FILE TIMEOUT 900)
    if(NOT EXISTS "${_root}/.complete")
      rustasr_fetch_ggml("${_root}")
    endif()
    file(LOCK "${_root}" DIRECTORY RELEASE)
  endif()
endif()
if(NOT EXISTS "${_ggml_tree}/include/ggml.h")
  message(FATAL_ERROR "ggml: expected a source tree with include/ggml.h, found none in ${_ggml_tree}")
endif()

# The licence lies in the tree or, where ggml is part of a larger source, one folder up.
foreach(_candidate "${_ggml_tree}/LICENSE" "${_ggml_tree}/../LICENSE")
  if(EXISTS "${_candidate}" AND NOT RUSTASR_GGML_LICENSE)
    set(RUSTASR_GGML_LICENSE "${_candidate}")
  endif()
endforeach()

# Settings that are part of what rustasr promises. They are forced: ggml's own defaults change with the
# environment (SOURCE_DATE_EPOCH switches its vector instructions off without a word).
macro(_ggml_set name value)
  set(${name} ${value} CACHE BOOL "set by rustasr" FORCE)
endmacro()
_ggml_set(GGML_LLAMAFILE ON)
_ggml_set(GGML_BUILD_TESTS OFF)
_ggml_set(GGML_BUILD_EXAMPLES OFF)
_ggml_set(GGML_OPENMP ${RUSTASR_OPENMP})
_ggml_set(GGML_NATIVE ${RUSTASR_NATIVE})
if(RUSTASR_STATIC)
  _ggml_set(BUILD_SHARED_LIBS OFF)
  _ggml_set(GGML_BACKEND_DL OFF)
  _ggml_set(GGML_CPU_ALL_VARIANTS OFF)
  if(RUSTASR_X86 AND NOT RUSTASR_NATIVE)
    foreach(_feature SSE42 AVX AVX2 FMA F16C BMI2)
      _ggml_set(GGML_${_feature} ON)
    endforeach()
  endif()
else()
  _ggml_set(BUILD_SHARED_LIBS ON)
  _ggml_set(GGML_BACKEND_DL ON)
  _ggml_set(GGML_CPU_ALL_VARIANTS ON)
endif()

# ggml's assertions print __FILE__: in a wheel that would be a path of the machine that built it.
if(NOT RUSTASR_STATIC AND NOT MSVC)
  add_compile_options("-ffile-prefix-map=${_ggml_tree}=ggml" "-ffile-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}=rustasr")
endif()

# In a function, so that what is said to ggml is not said to us.
function(rustasr_add_ggml)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  if(NOT RUSTASR_STATIC AND NOT MSVC)
    string(APPEND CMAKE_C_FLAGS " -w")
    string(APPEND CMAKE_CXX_FLAGS " -w")
  endif()
  # EXCLUDE_FROM_ALL keeps ggml's own install rules out of the wheel.
  add_subdirectory("${_ggml_tree}" ggml EXCLUDE_FROM_ALL)
endfunction()
rustasr_add_ggml()
add_library(rustasr::ggml ALIAS ggml)
set(RUSTASR_GGML_TREE "${_ggml_tree}")

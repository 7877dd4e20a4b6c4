# The Python module rustasr._core, and what is installed beside it: in the wheel build ggml's libraries, in every
# build the licences of the code that was compiled in.

if(NOT Python_Development.Module_FOUND)
  message(FATAL_ERROR "rustasr: the headers of Python ${Python_VERSION} are missing (Debian: python3-dev)")
endif()
if(NOT EXISTS "${pybind11_DIR}/pybind11Config.cmake")
  execute_process(COMMAND "${Python_EXECUTABLE}" -m pybind11 --cmakedir
                  OUTPUT_VARIABLE _cmakedir OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(pybind11_DIR "${_cmakedir}" CACHE PATH "pybind11Config.cmake" FORCE)
endif()
set(PYBIND11_FINDPYTHON ON)
find_package(pybind11 2.13 CONFIG REQUIRED)

pybind11_add_module(_core csrc/bindings.cpp)
target_link_libraries(_core PRIVATE rustasr_core rustasr_options)
if(NOT RUSTASR_SANITIZE AND NOT APPLE AND NOT WIN32)
  # Nothing but PyInit is exported: two modules with a static ggml of their own may live in one process.
  target_link_options(_core PRIVATE -Wl,--exclude-libs,ALL)
endif()
install(TARGETS _core LIBRARY DESTINATION rustasr)

# Every library lies in the package folder and finds the others there.
function(rustasr_place_beside_module)
  if(APPLE)
    set(_origin "@loader_path")
  else()
    set(_origin "$ORIGIN")
  endif()
  set(_rpath "${_origin}")
  foreach(_folder IN LISTS RUSTASR_BACKEND_RPATH)
    list(APPEND _rpath "${_origin}/${_folder}")
  endforeach()
  foreach(_target IN LISTS ARGN)
    set_target_properties(${_target} PROPERTIES INSTALL_RPATH "${_rpath}" BUILD_WITH_INSTALL_RPATH ON)
    # One file per library: a wheel would hold the symlinks of a versioned one as copies.
    set_property(TARGET ${_target} PROPERTY VERSION)
    set_property(TARGET ${_target} PROPERTY SOVERSION)
  endforeach()
endfunction()

if(NOT RUSTASR_STATIC AND NOT RUSTASR_SYSTEM_GGML)
  # The loadable backends: whatever cmake/backends.cmake and ggml's list of CPU variants configured.
  function(rustasr_backend_modules directory out)
    get_property(_targets DIRECTORY "${directory}" PROPERTY BUILDSYSTEM_TARGETS)
    get_property(_subdirectories DIRECTORY "${directory}" PROPERTY SUBDIRECTORIES)
    set(_modules)
    foreach(_target IN LISTS _targets)
      get_target_property(_type ${_target} TYPE)
      if(_type STREQUAL "MODULE_LIBRARY")
        list(APPEND _modules ${_target})
      endif()
    endforeach()
    foreach(_subdirectory IN LISTS _subdirectories)
      rustasr_backend_modules("${_subdirectory}" _more)
      list(APPEND _modules ${_more})
    endforeach()
    set(${out} "${_modules}" PARENT_SCOPE)
  endfunction()
  rustasr_backend_modules("${RUSTASR_GGML_TREE}" _backends)
  add_dependencies(_core ${_backends})
  rustasr_place_beside_module(_core ggml ggml-base ${_backends})
  set_property(TARGET ggml PROPERTY PUBLIC_HEADER)  # its paths are relative to ggml's folder
  # install(TARGETS), unlike install(FILES), strips and sets the run path. RUNTIME: where DLLs go on Windows.
  install(TARGETS ggml ggml-base ${_backends}
          LIBRARY DESTINATION rustasr RUNTIME DESTINATION rustasr ARCHIVE DESTINATION rustasr EXCLUDE_FROM_ALL)
endif()

if(SKBUILD_METADATA_DIR)
  set(_licenses "${SKBUILD_METADATA_DIR}/licenses/third-party")
else()
  set(_licenses "rustasr/licenses")
endif()
if(RUSTASR_GGML_LICENSE)
  install(FILES "${RUSTASR_GGML_LICENSE}" DESTINATION "${_licenses}" RENAME LICENSE.ggml)
endif()
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
          "import importlib.metadata as m; print(next(str(p.locate()) for p in m.files('pybind11') if p.name == 'LICENSE'))"
  OUTPUT_VARIABLE _pybind11_license OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT EXISTS "${_pybind11_license}")
  find_file(_pybind11_license_file NAMES copyright LICENSE PATHS /usr/share/doc/pybind11-dev /usr/share/licenses/pybind11
            NO_DEFAULT_PATH)
  set(_pybind11_license "${_pybind11_license_file}")
endif()
if(_pybind11_license)
  install(FILES "${_pybind11_license}" DESTINATION "${_licenses}" RENAME LICENSE.pybind11)
else()
  message(WARNING "rustasr: the licence text of pybind11 was not found; a wheel to distribute needs it")
endif()

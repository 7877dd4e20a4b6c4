// The ggml that was linked is the one that the code is written for.

#include <ggml-backend.h>
#include <ggml.h>

#include <string>

#include "check.h"

TEST_CASE("ggml: the pinned version is linked") { CHECK(std::string(ggml_version()) == "0.25.3"); }

TEST_CASE("ggml: a CPU device is registered in a static build") {
#ifdef RUSTASR_BACKEND_DL
    SKIP("backends are loaded at run time in this build");
#else
    CHECK(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) != nullptr);
#endif
}

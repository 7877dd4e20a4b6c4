#pragma once
// A unit-test harness the size of this file.
//
//     TEST_CASE("gguf: a truncated file names the byte") {
//         CHECK(n == 3);                                   // goes on after a failure
//         REQUIRE(pointer != nullptr);                     // leaves the case
//         CHECK_NEAR(y, 0.5, 1e-6);
//         CHECK_THROWS(load(path), ModelFileError, "byte 12");   // type, and a part of the message
//         if (!available) SKIP("no AVX-512 here");
//     }

#include <cmath>
#include <sstream>
#include <string>

namespace rustasr::test {

using Body = void (*)();

/// Registers a case at start-up; `file` is __FILE__.
struct Registrar {
    Registrar(const char* name, const char* file, Body body);
};

struct Abort {};
struct Skip {
    std::string reason;
};

void count_check();
void fail(const char* file, int line, const std::string& what);

template <class A, class B>
std::string near_message(const char* expression, A found, B expected, double tolerance) {
    std::ostringstream out;
    out.precision(9);
    out << expression << ": expected " << expected << " +- " << tolerance << ", found " << found;
    return out.str();
}

}  // namespace rustasr::test

#define RUSTASR_JOIN_(a, b) a##b
#define RUSTASR_JOIN(a, b) RUSTASR_JOIN_(a, b)

#define TEST_CASE_IMPL(name, body)                                                            \
    static void body();                                                                       \
    static const ::rustasr::test::Registrar RUSTASR_JOIN(body, _entry)(name, __FILE__, body); \
    static void body()
#define TEST_CASE(name) TEST_CASE_IMPL(name, RUSTASR_JOIN(test_case_, __LINE__))

#define CHECK(condition)                                                         \
    do {                                                                         \
        ::rustasr::test::count_check();                                          \
        if (!(condition)) ::rustasr::test::fail(__FILE__, __LINE__, #condition); \
    } while (false)

#define REQUIRE(condition)                                         \
    do {                                                           \
        ::rustasr::test::count_check();                            \
        if (!(condition)) {                                        \
            ::rustasr::test::fail(__FILE__, __LINE__, #condition); \
            throw ::rustasr::test::Abort{};                        \
        }                                                          \
    } while (false)

#define CHECK_NEAR(found, expected, tolerance)                                                          \
    do {                                                                                                \
        ::rustasr::test::count_check();                                                                 \
        const auto found_ = (found);                                                                    \
        const auto expected_ = (expected);                                                              \
        if (!(std::fabs(double(found_) - double(expected_)) <= (tolerance)))                            \
            ::rustasr::test::fail(__FILE__, __LINE__,                                                   \
                                  ::rustasr::test::near_message(#found, found_, expected_, tolerance)); \
    } while (false)

#define CHECK_THROWS(expression, Type, part)                                                          \
    do {                                                                                              \
        ::rustasr::test::count_check();                                                               \
        try {                                                                                         \
            (void)(expression);                                                                       \
            ::rustasr::test::fail(__FILE__, __LINE__, #expression " threw nothing, expected " #Type); \
        } catch (const Type& error_) {                                                                \
            if (std::string(error_.what()).find(part) == std::string::npos)                           \
                ::rustasr::test::fail(                                                                \
                    __FILE__, __LINE__,                                                               \
                    std::string("message `") + error_.what() + "` lacks `" + (part) + "`");           \
        } catch (const std::exception& error_) {                                                      \
            ::rustasr::test::fail(__FILE__, __LINE__,                                                 \
                                  std::string("expected " #Type ", found: ") + error_.what());        \
        }                                                                                             \
    } while (false)

#define SKIP(reason) \
    throw ::rustasr::test::Skip { reason }

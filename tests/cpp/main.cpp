// Runs the registered cases: all, or those of one file (--file test_gguf), or those whose name holds a text.
// Exit code 0: all passed; 1: some failed; 77: none failed and none ran (all skipped).

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "check.h"

namespace rustasr::test {
namespace {

struct Case {
    std::string name;
    std::string file;
    Body body;
};

std::vector<Case>& cases() {
    static std::vector<Case> all;
    return all;
}

long checks = 0;
long failures = 0;

enum class Outcome { kPassed, kFailed, kSkipped };

Outcome run(const Case& test) {
    const long failures_before = failures;
    try {
        test.body();
    } catch (const Abort&) {
        std::printf("left after the check above\n");
    } catch (const Skip& skip) {
        std::printf("skip  %s: %s\n", test.name.c_str(), skip.reason.c_str());
        return Outcome::kSkipped;
    } catch (const std::exception& error) {
        fail(test.file.c_str(), 0, std::string("unexpected exception: ") + error.what());
    }
    if (failures == failures_before) return Outcome::kPassed;
    std::printf("FAIL  %s\n", test.name.c_str());
    return Outcome::kFailed;
}

}  // namespace

Registrar::Registrar(const char* name, const char* file, Body body) { cases().push_back({name, file, body}); }

void count_check() { ++checks; }

void fail(const char* file, int line, const std::string& what) {
    ++failures;
    std::printf("%s:%d: %s\n", file, line, what.c_str());
}

}  // namespace rustasr::test

int main(int argc, char** argv) {
    using namespace rustasr::test;
    std::string file_part;
    std::string name_part;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        if (argument == "--file" && i + 1 < argc) {
            file_part = std::string(argv[++i]) + ".cpp";
        } else {
            name_part = argument;
        }
    }
    int passed = 0;
    int failed = 0;
    int skipped = 0;
    for (const Case& test : cases()) {
        if (test.file.find(file_part) == std::string::npos) continue;
        if (test.name.find(name_part) == std::string::npos) continue;
        switch (run(test)) {
            case Outcome::kPassed:
                ++passed;
                break;
            case Outcome::kFailed:
                ++failed;
                break;
            case Outcome::kSkipped:
                ++skipped;
                break;
        }
    }
    std::printf("%d passed, %d failed, %d skipped (%ld checks)\n", passed, failed, skipped, checks);
    if (failed > 0) return 1;
    return passed == 0 && skipped > 0 ? 77 : 0;
}

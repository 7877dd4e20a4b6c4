// The memory map: what it gives, what it refuses, and that its hints change nothing.

#include <filesystem>
#include <fstream>
#include <string>

#include "check.h"
#include "core/error.h"
#include "core/gguf.h"
#include "core/mapped_file.h"
#include "core/text.h"
#include "gguf_writer.h"

#ifndef _WIN32
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace rustasr::test {

namespace {

namespace fs = std::filesystem;

// A folder that goes away with the test.
struct TemporaryFolder {
    fs::path path;
    TemporaryFolder() {
        static int count = 0;
        const auto stamp = std::to_string(reinterpret_cast<uintptr_t>(this)) + "-" + std::to_string(count++);
        path = fs::temp_directory_path() / ("rustasr-test-" + stamp);
        fs::create_directories(path);
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    std::string write(const std::string& name, const std::string& content) const {
        std::ofstream(path / name, std::ios::binary) << content;
        return (path / name).string();
    }
};

std::string content_of(const MappedFile& file) {
    return std::string(reinterpret_cast<const char*>(file.data()), file.size());
}

}  // namespace

TEST_CASE("mapped file: the bytes of the file, and none of an empty one") {
    const TemporaryFolder folder;
    const std::string content = std::string("abc") + '\0' + "def";
    const std::string path = folder.write("some bytes", content);
    CHECK(content_of(*MappedFile::open(path)) == content);
    CHECK(MappedFile::open(path)->path() == path);
    CHECK(MappedFile::open(folder.write("empty", ""))->size() == 0);
}

TEST_CASE("mapped file: hints on any range leave the bytes readable") {
    const TemporaryFolder folder;
    std::string content(100001, 'x');
    for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i % 127);
    const auto file = MappedFile::open(folder.write("big", content));
    const size_t n = content.size();
    const size_t ranges[][2] = {{0, n},     {0, 0}, {1, 4096},  {5000, 1},
                                {n - 1, 1}, {n, 1}, {n + 1, n}, {4096, ~size_t{0}}};
    for (const auto& range : ranges) {
        file->advise_dont_need(range[0], range[1]);
        file->advise_will_need(range[0], range[1]);
        CHECK(content_of(*file) == content);
    }
    const auto memory = MappedFile::of_bytes({1, 2, 3}, "memory");
    memory->advise_dont_need(0, 3);
    memory->advise_will_need(0, 3);
    CHECK(memory->data()[2] == 3);
}

TEST_CASE("mapped file: pages that are not needed leave the resident set") {
#ifndef __linux__
    SKIP("reads /proc");
#else
    const auto resident_pages = [] {
        size_t total = 0, resident = 0;
        std::ifstream("/proc/self/statm") >> total >> resident;
        return resident;
    };
    constexpr size_t kBytes = size_t{16} << 20;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const TemporaryFolder folder;
    const auto file = MappedFile::open(folder.write("big", std::string(kBytes, 'x')));
    size_t sum = 0;
    for (size_t at = 0; at < kBytes; at += page) sum += file->data()[at];
    CHECK(sum == kBytes / page * 'x');
    const size_t before = resident_pages();
    file->advise_dont_need(0, kBytes);
    CHECK(resident_pages() + kBytes / page / 2 < before);
#endif
}

TEST_CASE("mapped file: what is no readable file is named") {
    const TemporaryFolder folder;
    const std::string missing = (folder.path / "missing.gguf").string();
    CHECK_THROWS(
        MappedFile::open(missing), ModelFileError,
        in_quotes(missing, 4096) + ": expected a readable model file, found no such file. Check the path.");
    CHECK_THROWS(MappedFile::open(""), ModelFileError, "expected a readable model file, found");
    CHECK_THROWS(MappedFile::open(folder.path.string()), ModelFileError,
                 "found a directory. Give the model file itself.");
    const std::string file = folder.write("file", "x");
    CHECK_THROWS(MappedFile::open(file + '\0' + "y"), ModelFileError, "found a path with a NUL byte");
    CHECK_THROWS(GgufFile::open(file), ModelFileError, "found a file that starts with \"x\"");
#ifndef _WIN32
    CHECK_THROWS(MappedFile::open(file + "/below"), ModelFileError, "found no such file");
    CHECK_THROWS(MappedFile::open("/dev/zero"), ModelFileError, "found a device");
    const std::string fifo = (folder.path / "fifo").string();
    REQUIRE(mkfifo(fifo.c_str(), 0600) == 0);
    CHECK_THROWS(MappedFile::open(fifo), ModelFileError, "found a FIFO");
#endif
}

TEST_CASE("mapped file: an unreadable file names the system's reason") {
#ifdef _WIN32
    SKIP("POSIX permissions");
#else
    if (geteuid() == 0) SKIP("root may read everything");
    const TemporaryFolder folder;
    const std::string path = folder.write("secret", "x");
    REQUIRE(chmod(path.c_str(), 0) == 0);
    CHECK_THROWS(MappedFile::open(path), ModelFileError,
                 "cannot be opened (Permission denied). Check its permissions.");
#endif
}

TEST_CASE("mapped file: a model opens from disk, and a claim of a gigabyte of metadata does not") {
    const TemporaryFolder folder;
    GgufImage image;
    image.tensor("w", {4}, GGML_TYPE_F32, 0).string("name", "tiny");
    image.data_bytes = 16;
    const std::vector<uint8_t> bytes = image.bytes();
    const std::string path = folder.write("good.gguf", std::string(bytes.begin(), bytes.end()));
    const auto file = GgufFile::open(path);
    CHECK(file->str("name") == "tiny");
    CHECK(static_cast<const uint8_t*>(file->find("w")->data)[15] == 15);

    const Bytes entry = Bytes().str("k").put<uint32_t>(STRING).put<uint64_t>(uint64_t{1} << 29);
    GgufImage claim;
    claim.entries = {entry};
    const std::vector<uint8_t> head = claim.bytes();
    const std::string sparse = folder.write("sparse.gguf", std::string(head.begin(), head.end()));
    std::error_code refused;
    fs::resize_file(sparse, uint64_t{1} << 30, refused);
    if (refused) SKIP("no room for a sparse file");
    CHECK_THROWS(GgufFile::open(sparse), ModelFileError, "expected a header of at most");
}

// ---- text of messages ----

TEST_CASE("text: a quoted text is one line of UTF-8, whatever it was") {
    CHECK(in_quotes("plain") == "\"plain\"");
    CHECK(in_quotes("\xD1\x8F") == "\"\xD1\x8F\"");
    CHECK(in_quotes("a\"b\\c\n") == "\"a\\x22b\\x5cc\\x0a\"");
    CHECK(in_quotes("\xFF\xC2\x9B!") == "\"\\xff\\xc2\\x9b!\"");
    CHECK(in_quotes(std::string(500, 'x'), 10) == "\"xxxxxxxxxx\"... (500 bytes)");
    for (int value = 0; value < 256; ++value)
        CHECK(is_utf8(in_quotes(std::string(3, static_cast<char>(value)))));
}

}  // namespace rustasr::test

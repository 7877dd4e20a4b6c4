#include "core/mapped_file.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/error.h"
#include "core/text.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#ifndef WIN32_LEAN_AND_MEAN
#define WIN32_LEAN_AND_MEAN
#endif
#include <windows.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#endif

namespace rustasr {

namespace {

[[noreturn]] void fail(const std::string& path, const std::string& found, const std::string& advice) {
    throw ModelFileError(in_quotes(path, 4096) + ": expected a readable model file, found " + found + ". " +
                         advice);
}

const char kCheckPath[] = "Check the path.";
const char kGiveFile[] = "Give the model file itself.";

size_t checked_size(const std::string& path, uint64_t size) {
    if (size > std::numeric_limits<size_t>::max()) {
        fail(path, std::to_string(size) + " bytes, more than this process can address",
             "Use a 64-bit build or a smaller model.");
    }
    return static_cast<size_t>(size);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::of_bytes(std::vector<uint8_t> bytes, std::string name) {
    std::shared_ptr<MappedFile> file(new MappedFile(std::move(name)));
    file->bytes_ = std::move(bytes);
    file->data_ = file->bytes_.data();
    file->size_ = file->bytes_.size();
    return file;
}

#ifdef _WIN32

namespace {

struct Handle {
    HANDLE value = INVALID_HANDLE_VALUE;
    ~Handle() {
        if (value != INVALID_HANDLE_VALUE && value != nullptr) CloseHandle(value);
    }
};

std::wstring wide(const std::string& path) {
    const int bytes = static_cast<int>(std::min<size_t>(path.size(), 1 << 20));
    const int length = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, nullptr, 0);
    if (length <= 0) fail(path, "a path that is empty or not UTF-8", kCheckPath);
    std::wstring out(static_cast<size_t>(length), L'\0');
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path.data(), bytes, &out[0], length);
    return out;
}

std::string system_error_text(DWORD code) { return "Windows error " + std::to_string(code); }

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
    if (path.find('\0') != std::string::npos) fail(path, "a path with a NUL byte", kCheckPath);
    const std::wstring wide_path = wide(path);
    const DWORD attributes = GetFileAttributesW(wide_path.c_str());
    if (attributes == INVALID_FILE_ATTRIBUTES) fail(path, "no such file", kCheckPath);
    if ((attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) fail(path, "a directory", kGiveFile);

    Handle file;
    file.value = CreateFileW(wide_path.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr,
                             OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file.value == INVALID_HANDLE_VALUE) {
        fail(path, "that it cannot be opened (" + system_error_text(GetLastError()) + ")",
             "Check its permissions and whether another program is writing it.");
    }
    if (GetFileType(file.value) != FILE_TYPE_DISK) fail(path, "a device or a pipe", kGiveFile);
    LARGE_INTEGER size;
    if (GetFileSizeEx(file.value, &size) == 0) fail(path, system_error_text(GetLastError()), kCheckPath);

    std::shared_ptr<MappedFile> out(new MappedFile(path));
    out->size_ = checked_size(path, static_cast<uint64_t>(size.QuadPart));
    if (out->size_ == 0) return out;
    Handle mapping;  // the view keeps the mapping alive after its handle is closed
    mapping.value = CreateFileMappingW(file.value, nullptr, PAGE_READONLY, 0, 0, nullptr);
    const void* view =
        mapping.value == nullptr ? nullptr : MapViewOfFile(mapping.value, FILE_MAP_READ, 0, 0, 0);
    if (view == nullptr) {
        fail(path, "that it cannot be mapped (" + system_error_text(GetLastError()) + ")",
             "Free some address space or copy the file to a local disk.");
    }
    out->data_ = static_cast<const uint8_t*>(view);
    out->mapped_ = true;
    return out;
}

MappedFile::~MappedFile() {
    if (mapped_) UnmapViewOfFile(data_);
}

void MappedFile::advise_dont_need(size_t, size_t) const noexcept {}
void MappedFile::advise_will_need(size_t, size_t) const noexcept {}
void MappedFile::advise_large_pages(void*, size_t) noexcept {}

#else

namespace {

struct Descriptor {
    int value = -1;
    ~Descriptor() {
        if (value >= 0) close(value);
    }
};

std::string system_error_text(int code) { return std::generic_category().message(code); }

// What a path that is no regular file is.
std::string kind_of(mode_t mode) {
    if (S_ISDIR(mode)) return "a directory";
    if (S_ISFIFO(mode)) return "a FIFO";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

// madvise wants page boundaries: the range grows outwards (will need) or shrinks inwards (do not need).
void advise(const uint8_t* base, size_t file_size, size_t offset, size_t size, int advice, bool inwards) {
    if (offset >= file_size) return;
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t end = offset + std::min(size, file_size - offset);
    const size_t low = inwards ? (offset + page - 1) / page * page : offset / page * page;
    // The last page of the file belongs to it whole, so a range that reaches the end takes it along.
    const size_t high = inwards && end != file_size ? end / page * page : end;
    if (low < high) madvise(const_cast<uint8_t*>(base) + low, high - low, advice);
}

}  // namespace

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
    if (path.find('\0') != std::string::npos) fail(path, "a path with a NUL byte", kCheckPath);
    // O_NONBLOCK: opening a FIFO that nobody writes to must not wait for ever.
    Descriptor file;
    file.value = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (file.value < 0) {
        const int code = errno;
        if (code == ENOENT || code == ENOTDIR) fail(path, "no such file", kCheckPath);
        fail(path, "that it cannot be opened (" + system_error_text(code) + ")", "Check its permissions.");
    }
    struct stat status = {};
    if (fstat(file.value, &status) != 0) fail(path, system_error_text(errno), kCheckPath);
    if (!S_ISREG(status.st_mode)) fail(path, kind_of(status.st_mode), kGiveFile);

    std::shared_ptr<MappedFile> out(new MappedFile(path));
    out->size_ = checked_size(path, static_cast<uint64_t>(status.st_size));
    if (out->size_ == 0) return out;
    void* view = mmap(nullptr, out->size_, PROT_READ, MAP_PRIVATE, file.value, 0);
    if (view == MAP_FAILED) {
        fail(path, "that it cannot be mapped (" + system_error_text(errno) + ")",
             "Raise the process's memory limit or copy the file to a local disk.");
    }
    out->data_ = static_cast<const uint8_t*>(view);
    out->mapped_ = true;
    return out;
}

MappedFile::~MappedFile() {
    if (mapped_) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::advise_dont_need(size_t offset, size_t size) const noexcept {
    if (mapped_) advise(data_, size_, offset, size, MADV_DONTNEED, true);
}

void MappedFile::advise_will_need(size_t offset, size_t size) const noexcept {
    if (mapped_) advise(data_, size_, offset, size, MADV_WILLNEED, false);
}

void MappedFile::advise_large_pages(void* data, size_t size) noexcept {
#ifdef MADV_HUGEPAGE
    constexpr size_t kLargePage = 2 << 20;
    const size_t skipped = (kLargePage - reinterpret_cast<uintptr_t>(data) % kLargePage) % kLargePage;
    if (size < skipped + kLargePage) return;
    madvise(static_cast<uint8_t*>(data) + skipped, (size - skipped) / kLargePage * kLargePage, MADV_HUGEPAGE);
#else
    (void)data;
    (void)size;
#endif
}

#endif

}  // namespace rustasr

#pragma once
// A whole file as read-only memory. mapped_file.cpp is the one place of the core that talks to the operating
// system (POSIX mmap, Windows file mappings); everything above it sees bytes and a size.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace rustasr {

class MappedFile {
   public:
    /// Maps the regular file at `path` (UTF-8 on Windows, any bytes on POSIX). An empty file maps to size()
    /// == 0. Throws ModelFileError when the path is missing, unreadable, or no regular file (directory, FIFO,
    /// device). The file must not shrink while it is mapped: reading a page that is gone kills the process on
    /// POSIX.
    static std::shared_ptr<const MappedFile> open(const std::string& path);

    /// Bytes that are already in memory, under the name that errors shall show. data() is aligned as by
    /// malloc.
    static std::shared_ptr<const MappedFile> of_bytes(std::vector<uint8_t> bytes, std::string name);

    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const std::string& path() const { return path_; }
    const uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

    /// Tells the system that [offset, offset + size) is not needed for now, so that its pages leave the
    /// resident set; reading it again is allowed and faults it back in. Only whole pages inside the range are
    /// given up. A hint: does nothing where the system has no such call, and never fails. Ranges are clipped
    /// to the file.
    void advise_dont_need(size_t offset, size_t size) const noexcept;
    /// Tells the system that [offset, offset + size) will be read soon. A hint, as above.
    void advise_will_need(size_t offset, size_t size) const noexcept;

    /// Asks for large pages under memory that is about to be filled (weights that every step streams). A
    /// hint.
    static void advise_large_pages(void* data, size_t size) noexcept;

   private:
    explicit MappedFile(std::string path) : path_(std::move(path)) {}

    std::string path_;
    const uint8_t* data_ = nullptr;
    size_t size_ = 0;
    bool mapped_ = false;  // false: data_ points into bytes_ (or the file is empty)
    std::vector<uint8_t> bytes_;
};

}  // namespace rustasr

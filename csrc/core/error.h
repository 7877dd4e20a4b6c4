#pragma once
// The exceptions of the core. Each class is mirrored in `rustasr.errors`; the class tells a caller what it
// can do, the message tells a person what was expected, what was found, where, and what to try.

#include <stdexcept>
#include <string>

namespace rustasr {

class Error : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

/// The file is not a usable model: truncated, malformed, incomplete, wrong shape or type.
class ModelFileError : public Error {
   public:
    using Error::Error;
};

/// The file is well formed but asks for something this build does not implement.
class UnsupportedModelError : public Error {
   public:
    using Error::Error;
};

/// No such device, or it failed or ran out of memory.
class DeviceError : public Error {
   public:
    using Error::Error;
};

/// An argument is outside what the call accepts.
class OptionError : public Error {
   public:
    using Error::Error;
};

/// The computation itself failed.
class TranscriptionError : public Error {
   public:
    using Error::Error;
};

/// `Session::cancel` was called while this call was running.
class Cancelled : public Error {
   public:
    using Error::Error;
};

}  // namespace rustasr

#pragma once
// Devices and the backends that compute on them. ggml's registry is enumerated, so that no vendor is named
// anywhere else: a device is asked what it is and what it can do.

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/thread_pace.h"
#include "ggml-backend.h"
#include "ggml-cpp.h"

namespace rustasr {

struct DeviceInfo {
    std::string name;         // "CPU", "CUDA0", …
    std::string description;  // the hardware's own name
    std::string type;         // "cpu" | "gpu" | "igpu" | "accel"
    size_t memory_free = 0;   // bytes
    size_t memory_total = 0;  // bytes
    std::map<std::string, std::string> features;
};

/// Loads the backend libraries that lie in `directory`. Builds that link their backends have nothing to load.
void load_backends(const std::string& directory);

/// Every device that ggml found, in its order of preference.
std::vector<DeviceInfo> devices();

/// "auto" | "cpu" | "gpu" | a registry name in any case ("cuda", "cuda1", "metal", "vulkan0").
/// Throws DeviceError that lists what there is.
ggml_backend_dev_t find_device(const std::string& name);

bool is_cpu(ggml_backend_dev_t device);

/// The last lines that ggml logged as errors; they belong into the message of the exception that follows.
std::string take_backend_errors();

/// What one session computes with: the chosen device and, behind it, the CPU for what the device lacks.
class Backend {
   public:
    /// n_threads > 0. Throws DeviceError.
    Backend(ggml_backend_dev_t device, int n_threads);
    ~Backend();
    Backend(const Backend&) = delete;
    Backend& operator=(const Backend&) = delete;

    bool on_cpu() const { return device_ == cpu_device_; }
    ggml_backend_dev_t device() const { return device_; }
    int n_threads() const { return n_threads_; }
    std::vector<ggml_backend_t> all() const;  // the device first, the CPU last

    /// A buffer on the device that holds all tensors of `context`. Throws DeviceError when memory is short.
    ggml_backend_buffer_ptr allocate(ggml_context* context, const std::string& what) const;

    /// Computes a graph that `scheduler` has placed.
    ggml_status compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph);

    /// Runs work(ith, nth) on the CPU's threads: ggml's pool, so that there is never a second one.
    void parallel(const std::function<void(int ith, int nth)>& work) const;

    void cancel() { cancelled_ = true; }
    /// Forgets a `cancel` that came when nothing was running.
    void forget_cancel() { cancelled_ = false; }
    /// Throws Cancelled, once, if `cancel` was called since the last check.
    void check_cancelled();

   private:
    void use_threads(int n);

    ggml_backend_dev_t device_;
    ggml_backend_dev_t cpu_device_;
    int n_threads_;
    std::atomic<bool> cancelled_{false};
    ggml_backend_ptr cpu_;
    ggml_backend_ptr main_;  // null when the device is the CPU
    ggml_threadpool* threadpool_ = nullptr;
    ggml_backend_set_n_threads_t set_n_threads_ = nullptr;
    int n_threads_set_ = 0;
    ThreadPace pace_;
};

}  // namespace rustasr

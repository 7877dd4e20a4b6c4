#include "core/backend.h"

#include <algorithm>
#include <cctype>
#include <mutex>

#include "core/error.h"
#include "ggml-alloc.h"
#include "ggml-cpu.h"
#include "ggml.h"

namespace rustasr {
namespace {

std::mutex log_mutex;
std::string log_errors;

// ggml prints to stderr by default; a library must not. Errors are kept for the next exception's message.
void keep_errors(ggml_log_level level, const char* text, void*) {
    if (level != GGML_LOG_LEVEL_ERROR) return;
    std::lock_guard<std::mutex> lock(log_mutex);
    if (log_errors.size() < 2000) log_errors += text;
}

const bool log_is_set = [] {
    ggml_log_set(keep_errors, nullptr);
    return true;
}();

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
    return text;
}

const char* type_name(enum ggml_backend_dev_type type) {
    switch (type) {
        case GGML_BACKEND_DEVICE_TYPE_CPU:
            return "cpu";
        case GGML_BACKEND_DEVICE_TYPE_GPU:
            return "gpu";
        case GGML_BACKEND_DEVICE_TYPE_IGPU:
            return "igpu";
        default:
            return "accel";
    }
}

// The CPU backend may be a library that was loaded at run time: its functions are asked for by name.
template <typename Function>
Function cpu_function(ggml_backend_dev_t cpu, const char* name) {
    return reinterpret_cast<Function>(
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu), name));
}

ggml_backend_dev_t cpu_device() {
    ggml_backend_dev_t device = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!device) {
        throw DeviceError(
            "no CPU backend was loaded: expected libggml-cpu beside the rustasr package; reinstall the "
            "package");
    }
    return device;
}

ggml_backend_t init(ggml_backend_dev_t device) {
    ggml_backend_t backend = ggml_backend_dev_init(device, nullptr);
    if (!backend) {
        throw DeviceError("device " + std::string(ggml_backend_dev_name(device)) +
                          " could not be initialised: " + take_backend_errors() + "; try --device cpu");
    }
    return backend;
}

}  // namespace

void load_backends(const std::string& directory) {
#ifdef RUSTASR_BACKEND_DL
    static std::once_flag once;
    std::call_once(once, [&] { ggml_backend_load_all_from_path(directory.c_str()); });
#else
    (void)directory;
#endif
}

std::vector<DeviceInfo> devices() {
    std::vector<DeviceInfo> found;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        DeviceInfo info;
        info.name = ggml_backend_dev_name(device);
        info.description = ggml_backend_dev_description(device);
        info.type = type_name(ggml_backend_dev_type(device));
        ggml_backend_dev_memory(device, &info.memory_free, &info.memory_total);
        ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(device);
        auto features = reinterpret_cast<ggml_backend_get_features_t>(
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
        for (auto* f = features ? features(reg) : nullptr; f && f->name; ++f)
            info.features[f->name] = f->value;
        found.push_back(std::move(info));
    }
    return found;
}

bool is_cpu(ggml_backend_dev_t device) {
    return ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
}

ggml_backend_dev_t find_device(const std::string& name) {
    const std::string wanted = lower(name);
    std::string listed;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        const enum ggml_backend_dev_type type = ggml_backend_dev_type(device);
        const bool gpu = type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
        const std::string own = lower(ggml_backend_dev_name(device));
        const std::string family = lower(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)));
        if (gpu && (wanted == "auto" || wanted == "gpu")) return device;
        if (wanted == own || (gpu && wanted == family)) return device;
        listed += (listed.empty() ? "" : ", ") + own;
    }
    if (wanted == "auto" || wanted == "cpu") return cpu_device();
    throw DeviceError("no device \"" + name + "\": expected auto, cpu, gpu or one of: " + listed +
                      "; see `rustasr devices`");
}

std::string take_backend_errors() {
    std::lock_guard<std::mutex> lock(log_mutex);
    std::string text = std::move(log_errors);
    log_errors.clear();
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
    return text;
}

Backend::Backend(ggml_backend_dev_t device, int n_threads)
    : device_(device), cpu_device_(cpu_device()), n_threads_(n_threads), pace_(n_threads) {
    cpu_.reset(init(cpu_device_));
    if (!on_cpu()) main_.reset(init(device_));

    // One pool for the life of the session: ggml would otherwise start its threads again for every graph,
    // which costs as much as a decoder step of a small model.
    auto pool_new = cpu_function<decltype(&ggml_threadpool_new)>(cpu_device_, "ggml_threadpool_new");
    auto set_pool = cpu_function<void (*)(ggml_backend_t, ggml_threadpool_t)>(
        cpu_device_, "ggml_backend_cpu_set_threadpool");
    ggml_threadpool_params params = ggml_threadpool_params_default(n_threads);
    params.poll = 1;  // about a millisecond awake after a graph: longer than between two decoder steps
    if (pool_new && set_pool && n_threads > 1) {
        threadpool_ = pool_new(&params);
        if (threadpool_) set_pool(cpu_.get(), threadpool_);
    }
    set_n_threads_ = cpu_function<ggml_backend_set_n_threads_t>(cpu_device_, "ggml_backend_set_n_threads");
    use_threads(n_threads);
    auto set_abort =
        cpu_function<ggml_backend_set_abort_callback_t>(cpu_device_, "ggml_backend_set_abort_callback");
    if (set_abort) {
        set_abort(
            cpu_.get(), [](void* flag) { return static_cast<std::atomic<bool>*>(flag)->load(); },
            &cancelled_);
    }
}

Backend::~Backend() {
    cpu_.reset();
    if (threadpool_) {
        if (auto pool_free =
                cpu_function<decltype(&ggml_threadpool_free)>(cpu_device_, "ggml_threadpool_free")) {
            pool_free(threadpool_);
        }
    }
}

std::vector<ggml_backend_t> Backend::all() const {
    if (on_cpu()) return {cpu_.get()};
    return {main_.get(), cpu_.get()};
}

void Backend::use_threads(int n) {
    if (n == n_threads_set_ || !set_n_threads_) return;
    set_n_threads_(cpu_.get(), n);
    n_threads_set_ = n;
}

ggml_status Backend::compute(ggml_backend_sched_t scheduler, ggml_cgraph* graph) {
    if (!on_cpu()) return ggml_backend_sched_graph_compute(scheduler, graph);
    use_threads(pace_.begin());
    const ggml_status status = ggml_backend_sched_graph_compute(scheduler, graph);
    pace_.end();
    return status;
}

ggml_backend_buffer_ptr Backend::allocate(ggml_context* context, const std::string& what) const {
    ggml_backend_buffer_t buffer =
        ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_dev_buffer_type(device_));
    if (!buffer) {
        throw DeviceError("not enough memory on " + std::string(ggml_backend_dev_name(device_)) + " for " +
                          what + ": " + take_backend_errors() +
                          "; try --device cpu or a smaller --batch-size");
    }
    return ggml_backend_buffer_ptr(buffer);
}

void Backend::parallel(const std::function<void(int, int)>& work) const {
    using Work = std::function<void(int, int)>;
    ggml_context_ptr context(
        ggml_init({4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(4, false), nullptr, true}));
    ggml_tensor* source = ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, 1);
    ggml_tensor* node = ggml_custom_4d(
        context.get(), GGML_TYPE_F32, 1, 1, 1, 1, &source, 1,
        [](ggml_tensor*, int ith, int nth, void* user) { (*static_cast<const Work*>(user))(ith, nth); },
        GGML_N_TASKS_MAX, const_cast<Work*>(&work));
    ggml_cgraph* graph = ggml_new_graph_custom(context.get(), 4, false);
    ggml_build_forward_expand(graph, node);
    const ggml_backend_buffer_ptr buffer(ggml_backend_alloc_ctx_tensors(context.get(), cpu_.get()));
    ggml_backend_graph_compute(cpu_.get(), graph);
}

void Backend::check_cancelled() {
    if (cancelled_.exchange(false)) throw Cancelled("the transcription was cancelled");
}

}  // namespace rustasr

#include "core/weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "core/error.h"
#include "ggml.h"

namespace rustasr {
namespace {

std::string shape_text(const int64_t* ne, size_t n) {
    std::string text = "[";
    for (size_t i = 0; i < n; ++i) text += (i ? ", " : "") + std::to_string(ne[i]);
    return text + "]";
}

// Whether our own product takes weights of this type, and as what.
bool is_ours(ggml_type type) { return type == GGML_TYPE_Q8_0 || type == GGML_TYPE_Q4_0; }

kernels::Quants quants_of(ggml_type type) {
    GGML_ASSERT(is_ours(type));
    return type == GGML_TYPE_Q4_0 ? kernels::Quants::Q4_0 : kernels::Quants::Q8_0;
}

}  // namespace

ggml_tensor* Weights::get(const std::string& name, std::initializer_list<int64_t> shape) const {
    return store_->add(store_->claim(path(name), shape), WeightStore::Place::Default);
}

ggml_tensor* Weights::get_f32(const std::string& name, std::initializer_list<int64_t> shape) const {
    return store_->add(store_->claim_f32(path(name), shape), WeightStore::Place::Default);
}

const float* Weights::host_f32(const std::string& name, std::initializer_list<int64_t> shape) const {
    return static_cast<const float*>(store_->claim_f32(path(name), shape).data);
}

MatMulWeight Weights::matmul(const std::string& name, int64_t k, int64_t n) const {
    const TensorInfo& source = store_->claim(path(name), {k, n});
    const WeightStore::Place place = store_->place_for(source);
    MatMulWeight weight{store_->add(source, place), k, n};
    if (place == WeightStore::Place::Packed) weight.packed = quants_of(source.type);
    return weight;
}

WeightStore::WeightStore(std::shared_ptr<const GgufFile> file, ggml_backend_dev_t device)
    : file_(std::move(file)), device_(device) {
    // One tensor may be wanted twice (an embedding is also the output matrix), hence twice the count.
    const ggml_init_params params = {(2 * file_->tensors().size() + 8) * ggml_tensor_overhead(), nullptr,
                                     true};
    for (int place = 0; place < 2; ++place) contexts_.emplace_back(ggml_init(params));
}

const TensorInfo& WeightStore::claim(const std::string& name, std::initializer_list<int64_t> shape) {
    const TensorInfo* source = file_->find(name);
    if (!source) {
        throw ModelFileError(file_->path() + ": tensor " + in_quotes(name) + " is missing: expected shape " +
                             shape_text(shape.begin(), shape.size()) + "; convert the model again");
    }
    bool same = true;
    for (size_t i = 0; i < GGML_MAX_DIMS; ++i) {
        same &= source->ne[i] == (i < shape.size() ? shape.begin()[i] : 1);
    }
    if (!same) {
        throw ModelFileError(file_->path() + ": tensor " + in_quotes(name) + ": expected shape " +
                             shape_text(shape.begin(), shape.size()) + ", found " +
                             shape_text(source->ne, static_cast<size_t>(source->n_dims)) + " at byte " +
                             std::to_string(source->offset) + "; convert the model again");
    }
    claimed_.insert(name);
    return *source;
}

const TensorInfo& WeightStore::claim_f32(const std::string& name, std::initializer_list<int64_t> shape) {
    const TensorInfo& source = claim(name, shape);
    if (source.type == GGML_TYPE_F32) return source;
    throw ModelFileError(file_->path() + ": tensor " + in_quotes(name) + " must be f32, found " +
                         ggml_type_name(source.type) + "; convert the model again");
}

WeightStore::Place WeightStore::place_for(const TensorInfo& source) {
    if (!is_cpu(device_)) return Place::Default;
    if (is_ours(source.type) && kernels::q8_supported(source.ne[0], source.ne[1])) return Place::Packed;
    return Place::Default;
}

ggml_tensor* WeightStore::add(const TensorInfo& source, Place place) {
    ggml_context* context = contexts_[static_cast<size_t>(place)].get();
    if (ggml_tensor* known = ggml_get_tensor(context, source.name.c_str())) return known;
    ggml_tensor* tensor = place == Place::Packed
                              ? ggml_new_tensor_1d(context, GGML_TYPE_I8,
                                                   static_cast<int64_t>(kernels::q8_packed_nbytes(
                                                       source.ne[0], source.ne[1], quants_of(source.type))))
                              : ggml_new_tensor(context, source.type, source.n_dims, source.ne);
    ggml_set_name(tensor, source.name.c_str());
    slots_.push_back({&source, tensor, place});
    return tensor;
}

void WeightStore::load(int n_threads) {
    check_all_claimed();
    map_or_copy();
    pack(n_threads);
    // What was copied is not read again, and what stays in the map comes back when it is.
    file_->file().advise_dont_need(0, file_->file().size());
    for (const Slot& slot : slots_) nbytes_ += ggml_nbytes(slot.tensor);
}

void WeightStore::check_all_claimed() const {
    std::string unclaimed;
    size_t count = 0;
    for (const TensorInfo& tensor : file_->tensors()) {
        if (claimed_.count(tensor.name)) continue;
        if (++count <= 3) unclaimed += (count > 1 ? ", " : "") + in_quotes(tensor.name);
    }
    if (count) {
        throw ModelFileError(file_->path() + ": " + std::to_string(count) +
                             " tensors that this model does not have: " + unclaimed +
                             (count > 3 ? ", …" : "") +
                             "; the file is of another model or newer than this build");
    }
}

void WeightStore::map_or_copy() {
    ggml_backend_dev_props props;
    ggml_backend_dev_get_props(device_, &props);
    const ggml_backend_buffer_type_t type = ggml_backend_dev_buffer_type(device_);
    auto* base = const_cast<uint8_t*>(file_->file().data());
    const bool aligned = reinterpret_cast<uintptr_t>(base) % ggml_backend_buft_get_alignment(type) == 0;
    if (!props.caps.buffer_from_host_ptr || !is_cpu(device_) || !aligned) {
        copy_into(Place::Default, type);
        return;
    }
    // The CPU computes on the mapped pages themselves: nothing is copied, and two processes share them. But
    // around a small tensor the system maps pages that nobody reads, all over the file.
    constexpr size_t kSmall = 256 << 10;
    ggml_backend_buffer_t buffer =
        ggml_backend_dev_buffer_from_host_ptr(device_, base, file_->file().size(), file_->file().size());
    if (!buffer)
        throw DeviceError("the memory map of " + file_->path() + " could not be used by the CPU backend");
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    buffers_.emplace_back(buffer);
    for (const Slot& slot : slots_) {
        if (slot.place == Place::Default && slot.source->nbytes > kSmall) {
            ggml_backend_tensor_alloc(buffer, slot.tensor, base + slot.source->offset);
        }
    }
    copy_into(Place::Default, type);
}

void WeightStore::allocate(Place place, ggml_backend_buffer_type_t type) {
    ggml_context* context = contexts_[static_cast<size_t>(place)].get();
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, type);
    if (!buffer) {
        throw DeviceError("not enough memory on " + std::string(ggml_backend_dev_name(device_)) +
                          " for the weights of " + file_->path() + ": " + take_backend_errors() +
                          "; try --device cpu or a smaller quantisation");
    }
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    if (is_cpu(device_)) {
        MappedFile::advise_large_pages(ggml_backend_buffer_get_base(buffer),
                                       ggml_backend_buffer_get_size(buffer));
    }
    buffers_.emplace_back(buffer);
}

void WeightStore::copy_into(Place place, ggml_backend_buffer_type_t type) {
    std::vector<const Slot*> slots;
    for (const Slot& slot : slots_) {
        if (slot.place == place && !slot.tensor->buffer) slots.push_back(&slot);
    }
    if (slots.empty()) return;
    allocate(place, type);
    for (const Slot* slot : slots) {
        ggml_backend_tensor_set(slot->tensor, slot->source->data, 0, slot->source->nbytes);
        file_->file().advise_dont_need(slot->source->offset, slot->source->nbytes);
    }
}

void WeightStore::pack(int n_threads) {
    struct Part {
        const Slot* slot;
        int64_t begin, end;  // rows
    };
    // So large that a page is mapped once, so small that what is not yet given back does not count.
    constexpr size_t kPart = 4 << 20;
    std::vector<Part> parts;
    for (const Slot& slot : slots_) {
        if (slot.place != Place::Packed) continue;
        const int64_t n = slot.source->ne[1];
        const auto most = static_cast<int64_t>(kPart / (slot.source->nbytes / static_cast<size_t>(n)));
        const int64_t rows = std::max<int64_t>(1, most / kernels::kQ8PackRows) * kernels::kQ8PackRows;
        for (int64_t row = 0; row < n; row += rows) parts.push_back({&slot, row, std::min(n, row + rows)});
    }
    if (parts.empty()) return;
    allocate(Place::Packed, ggml_backend_dev_buffer_type(device_));

    std::atomic<size_t> next{0};
    const auto work = [&] {
        for (size_t i = next++; i < parts.size(); i = next++) {
            const auto [slot, begin, end] = parts[i];
            const TensorInfo& source = *slot->source;
            kernels::q8_pack(source.data, source.ne[0], source.ne[1], slot->tensor->data, begin, end,
                             quants_of(source.type));
            // The file's pages are not needed again; without this the weights count twice in the peak.
            const size_t row = source.nbytes / static_cast<size_t>(source.ne[1]);
            file_->file().advise_dont_need(source.offset + static_cast<size_t>(begin) * row,
                                           static_cast<size_t>(end - begin) * row);
        }
    };
    std::vector<std::thread> helpers;
    for (int i = 1; i < n_threads; ++i) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
}

}  // namespace rustasr

// A device that torch calls PrivateUse1: host memory that counts what is allocated, with every operator computed on
// the processor. It is there to be taken for an NPU by programs that run on one; it is no faster than it looks.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pthread.h>
#include <torch/library.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <mutex>
#include <sstream>
#include <unordered_map>

namespace {

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::Stream;
constexpr auto NPU = c10::DeviceType::PrivateUse1;
constexpr int MOST_DEVICES = 16;

size_t number_from(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

// As torch-npu and the driver have it: a list that does not ascend leaves no device at all, and one that names what is
// not there those before.
DeviceIndex count_devices() {
  int there = std::min<int>(number_from("FAKE_NPU_COUNT", 2), MOST_DEVICES);
  const char* visible = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
  if (!visible) return there;
  std::istringstream list(visible);
  int count = 0, before = -1;
  for (std::string word; std::getline(list, word, ',') && !word.empty(); count++) {
    if (!std::all_of(word.begin(), word.end(), ::isdigit)) break;
    int index = std::atoi(word.c_str());
    if (index <= before) return 0;
    if (index >= there) break;
    before = index;
  }
  return count;
}

const DeviceIndex DEVICES = count_devices();
const size_t CAPACITY = number_from("FAKE_NPU_MEMORY_MIB", 65536) << 20;
thread_local DeviceIndex current = 0;
bool used = false, forked = false;  // a device that was used cannot be used by a child that was forked off later

DeviceIndex checked(DeviceIndex index) {
  TORCH_CHECK(index >= 0 && index < DEVICES, "Invalid NPU device index ", int(index), " of ", int(DEVICES));
  return index;
}

// No c10::DeviceAllocator, as the real one is none: torch.accelerator cannot ask it about memory, torch.npu can.
struct Memory final : c10::Allocator {
  std::mutex lock;
  std::unordered_map<void*, std::pair<size_t, DeviceIndex>> blocks;
  int64_t held[MOST_DEVICES] = {}, most[MOST_DEVICES] = {};  // bytes

  static Memory& it() {
    static Memory* memory = new Memory;
    return *memory;
  }

  c10::DataPtr allocate(size_t size) override {
    TORCH_CHECK(!forked, "Cannot re-initialize NPU in forked subprocess. To use NPU with multiprocessing, use 'spawn'");
    std::lock_guard<std::mutex> guard(lock);
    Device device(NPU, checked(current));
    int64_t& used_here = held[current];
    TORCH_CHECK_WITH(OutOfMemoryError, used_here + size <= CAPACITY, "NPU out of memory. Tried to allocate ", size,
                     " bytes; ", used_here, " of ", CAPACITY, " are in use.");
    used = true;
    if (!size) return {nullptr, nullptr, &release, device};
    void* data = std::aligned_alloc(64, (size + 63) / 64 * 64);
    TORCH_CHECK(data, "the host has no memory left");
    blocks[data] = {size, current};
    used_here += size;
    most[current] = std::max(most[current], used_here);
    return {data, data, &release, device};
  }

  static void release(void* data) {
    auto& memory = it();
    std::lock_guard<std::mutex> guard(memory.lock);
    auto found = memory.blocks.find(data);
    if (found == memory.blocks.end()) return;
    auto [size, device] = found->second;
    memory.held[device] -= size;
    memory.blocks.erase(found);
    std::free(data);
  }

  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }
};

// Work is done when it is asked for: a stream is a number, and every event has happened.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return NPU; }
  Device exchangeDevice(Device device) const override {
    Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return {NPU, current}; }
  void setDevice(Device device) const override { current = checked(device.index()); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  Stream getStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream getDefaultStream(Device device) const override { return Stream(Stream::DEFAULT, device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return Stream(Stream::DEFAULT, device); }
  Stream getNewStream(Device device, int) const override { return Stream(Stream::DEFAULT, device); }
  Stream exchangeStream(Stream stream) const override { return Stream(Stream::DEFAULT, stream.device()); }
  DeviceIndex deviceCount() const noexcept override { return DEVICES; }
  void record(void** event, const Stream&, DeviceIndex, c10::EventFlag) const override { *event = &used; }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const Stream&) const override {}
  double elapsedTime(void*, void*, DeviceIndex) const override { return 0; }
};

// Numbers of its own, so that a state which is not saved or not restored shows.
struct Generator final : at::CPUGeneratorImpl {
  explicit Generator(DeviceIndex device) {
    device_ = {NPU, device};
    key_set_ = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);
  }
};

at::Generator& default_generator(DeviceIndex device) {
  static auto* generators = [] {
    auto* made = new std::vector<at::Generator>;
    for (int index = 0; index < MOST_DEVICES; index++) made->push_back(at::make_generator<Generator>(index));
    return made;
  }();
  return (*generators)[device < 0 ? current : device];
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return DEVICES > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return used; }
  DeviceIndex deviceCount() const override { return DEVICES; }
  void setCurrentDevice(DeviceIndex index) const override { current = checked(index); }
  DeviceIndex getCurrentDevice() const override { return current; }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return Guard().exchangeDevice({NPU, index}).index(); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return index < 0 ? current : exchangeDevice(index);
  }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override { return default_generator(index); }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    return at::make_generator<Generator>(index < 0 ? current : index);
  }
  Device getDeviceFromPtr(void* data) const override { return {NPU, Memory::it().blocks.at(data).second}; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    c10::DeviceGuard guard(storage.device());
    auto grown = Memory::it().allocate(size);
    if (size_t kept = std::min(size, storage.nbytes())) std::memcpy(grown.get(), storage.data(), kept);
    storage.set_data_ptr_noswap(std::move(grown));
    storage.unsafeGetStorageImpl()->set_nbytes(size);
  }
};

// ---- operators ----

c10::DispatchKeySet KEYS(c10::DispatchKey::PrivateUse1);

Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
             std::optional<Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_generic(size, &Memory::it(), KEYS, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                     std::optional<at::Layout>, std::optional<Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard guard(device);
  return at::detail::empty_strided_generic(size, stride, &Memory::it(), KEYS, c10::dtype_or_default(dtype));
}

Tensor on_host(const Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  if (to.numel()) on_host(to).copy_(on_host(from));
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

const Tensor& resize(const Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  size_t bytes = impl->storage_offset() * self.itemsize() + self.numel() * self.itemsize();
  if (bytes > self.storage().nbytes()) at::detail::getPrivateUse1Hooks().resizePrivateUse1Bytes(self.storage(), bytes);
  return self;
}

// Operators that draw do so from the device's generator, or from the one that they are given.
void on_processor(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  std::vector<std::pair<at::Generator, at::Generator>> stands_for;  // the processor's, the device's
  auto stand_in = [&](at::Generator host, at::Generator device) {
    host.set_state(device.get_state());
    stands_for.emplace_back(host, device);
  };
  for (size_t at = 0; at < arguments.size(); at++) {
    auto& value = (*stack)[stack->size() - arguments.size() + at];
    if (!value.isGenerator() || value.toGenerator().device().type() != NPU) continue;
    auto host = at::detail::createCPUGenerator();
    stand_in(host, value.toGenerator());
    value = c10::IValue(host);
  }
  auto& processors = at::detail::getDefaultCPUGenerator();
  static std::recursive_mutex drawing;
  std::unique_lock<std::recursive_mutex> lock(drawing, std::defer_lock);
  std::optional<Tensor> before;
  if (stands_for.empty() && op.hasTag(at::Tag::nondeterministic_seeded)) {
    lock.lock();
    before = processors.get_state();
    stand_in(processors, default_generator(current));
  }
  at::native::cpu_fallback(op, stack, /*error_on_views=*/true);
  for (auto& [host, device] : stands_for) device.set_state(host.get_state());
  if (before) at::Generator(processors).set_state(*before);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&on_processor>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("resize_", &resize);
  // What is on the processor may become what is on the device, in place: `parameter.data = …`.
  m.impl("_has_compatible_shallow_copy_type", [](const Tensor&, const Tensor&) { return true; });
  m.impl("as_strided", &at::native::as_strided_tensorimpl);
  m.impl("_reshape_alias", &at::native::_reshape_alias);
  m.impl("view", &at::native::view);
  m.impl("unfold", &at::native::unfold);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_.source_Storage_storage_offset",
         static_cast<Tensor& (*)(Tensor&, c10::Storage, int64_t, at::IntArrayRef, at::IntArrayRef)>(
             &at::native::set_storage_cpu_));
}

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define IN_16_BITS(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
#define IN_32_BITS(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
  AT_FORALL_LOWER_PRECISION_FP(IN_16_BITS)
  AT_FORALL_FP32(IN_32_BITS)
}

TORCH_LIBRARY(fake_npu, m) {
  m.def("rng_state(int device) -> Tensor", [](int64_t device) { return default_generator(device).get_state(); });
  m.def("set_rng_state(int device, Tensor state) -> ()",
        [](int64_t device, const Tensor& state) { default_generator(device).set_state(state); });
  m.def("seed(int device, int seed) -> ()",
        [](int64_t device, int64_t seed) { default_generator(device).set_current_seed(seed); });
  m.def("device_count() -> int", []() { return int64_t(DEVICES); });
  m.def("memory(int device) -> int[]", [](int64_t device) {
    auto& memory = Memory::it();
    auto index = checked(device);
    return std::vector<int64_t>{memory.held[index], memory.most[index], int64_t(CAPACITY)};
  });
  m.def("reset_peak(int device) -> ()", [](int64_t device) {
    auto& memory = Memory::it();
    memory.most[checked(device)] = memory.held[device];
  });
  m.def("is_in_bad_fork() -> bool", []() { return forked; });
}

const bool registered = [] {
  c10::SetAllocator(NPU, &Memory::it());
  at::RegisterPrivateUse1HooksInterface(new Hooks);
  pthread_atfork(nullptr, nullptr, [] { forked = used; });
  return true;
}();
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace

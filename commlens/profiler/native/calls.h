// What a collective's arguments say: bytes, element type, peer, group.
#pragma once

#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "log.h"

namespace commlens {

inline int64_t num_bytes(const at::Tensor& tensor) {
  if (!tensor.defined()) return 0;
  if (tensor.layout() == at::kSparse) return num_bytes(tensor._indices()) + num_bytes(tensor._values());
  return static_cast<int64_t>(tensor.nbytes());
}

// Bytes of a tensor, or of all tensors of a (nested) list.
inline int64_t num_bytes(const c10::IValue& value) {
  if (value.isTensor()) return num_bytes(value.toTensor());
  int64_t sum = 0;
  if (value.isList())
    for (const c10::IValue& each : value.toListRef()) sum += num_bytes(each);
  return sum;
}

// The first tensor of a (nested) list, an undefined one where there is none.
inline at::Tensor first_tensor(const c10::IValue& value) {
  if (value.isTensor()) return value.toTensor();
  if (!value.isList() || value.toListRef().empty()) return {};
  return first_tensor(value.toListRef()[0]);
}

// Where the tensor's memory is, nullptr where it has none: torch.compile traces with such tensors.
inline const void* address_of(const at::Tensor& tensor) {
  try {
    if (!tensor.defined() || !tensor.has_storage()) return nullptr;
    const void* memory = tensor.storage().data();
    if (memory == nullptr) return nullptr;
    return static_cast<const char*>(memory) + tensor.storage_offset() * tensor.itemsize();
  } catch (const std::exception&) {
    return nullptr;
  }
}

// The schema says that `value` is a custom class that wraps a T: no look at its type is needed.
template <typename T>
T* wrapped(const c10::IValue& value) {
  return static_cast<T*>(value.toObjectRef().getSlot(0).toCapsule().get());
}

}  // namespace commlens

// Process groups as the hooks know them: what Python said of each at first sight, counters, DDP's buckets.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "slots.h"

namespace commlens {

struct Group {
  int16_t code = 0;
  int32_t size = 0;
  bool host_cpu = false, host_device = false;  // collectives of such tensors end on the host, where it can be seen
  bool spans = false;                          // the backend reports when it executes (Gloo)
  bool checked = false;                        // Python may not tell when it goes: name and size are compared
  std::string name;                            // as in the trace
  std::string torch_name;
  std::vector<int64_t> ranks;  // global, by rank in the group

  std::atomic<int64_t> sequence{0};
  std::atomic<uint32_t> without_future{0};  // operations, a bit each
  std::mutex lock;                          // of what follows
  std::map<std::pair<int32_t, bool>, int64_t> messages;  // by peer and direction
  std::vector<std::vector<int64_t>> layouts;             // bytes of DDP's buckets, a model each
  std::vector<size_t> positions;
  int64_t backward = 0;

  int32_t global_rank(int64_t in_group) const {
    return in_group >= 0 && in_group < static_cast<int64_t>(ranks.size()) ? static_cast<int32_t>(ranks[in_group])
                                                                          : static_cast<int32_t>(kMissing);
  }

  int64_t next_message(int32_t peer, bool is_send) {
    std::lock_guard<std::mutex> guard(lock);
    return messages[{peer, is_send}]++;
  }

  // As Buckets.of in buckets.py: the DDP bucket that an all_reduce of this backward carries.
  int32_t bucket(int64_t in_backward, int64_t bytes) {
    std::lock_guard<std::mutex> guard(lock);
    if (layouts.empty()) return kMissing;
    if (backward != in_backward) {
      backward = in_backward;
      positions.assign(layouts.size(), 0);
    }
    size_t model = layouts.size(), fits = 0;
    for (size_t each = 0; each < layouts.size(); ++each) {
      if (positions[each] >= layouts[each].size() || layouts[each][positions[each]] != bytes) continue;
      model = each;
      ++fits;
    }
    return fits == 1 ? static_cast<int32_t>(positions[model]++) : static_cast<int32_t>(kMissing);
  }

  void set_layouts(std::vector<std::vector<int64_t>> found) {
    std::lock_guard<std::mutex> guard(lock);
    layouts = std::move(found);
    positions.assign(layouts.size(), 0);
  }
};

// From a ProcessGroup's address to its Group. Readers take no lock; entries are never freed.
class Groups {
 public:
  using Resolve = std::function<std::shared_ptr<Group>(c10d::ProcessGroup*)>;

  Group* of(c10d::ProcessGroup* process_group, const Resolve& resolve) {
    if (Group* known = find(process_group)) return known;
    auto group = resolve(process_group);  // may take the interpreter lock: ours must not be held
    std::lock_guard<std::mutex> guard(lock_);
    if (Group* known = find(process_group)) return known;  // another thread asked at the same time: one counts
    place(process_group)->group.store(group.get(), std::memory_order_release);
    owned_.push_back(group);
    return group.get();
  }

  void forget(const void* process_group) {
    std::lock_guard<std::mutex> guard(lock_);
    for (Entry& entry : entries_)
      if (entry.address.load(std::memory_order_acquire) == process_group) entry.group.store(nullptr);
  }

  void set_layouts(const std::string& name, const std::vector<std::vector<int64_t>>& layouts) {
    std::lock_guard<std::mutex> guard(lock_);
    for (auto& group : owned_)
      if (group->name == name) group->set_layouts(layouts);
  }

 private:
  struct Entry {
    std::atomic<const void*> address{nullptr};
    std::atomic<Group*> group{nullptr};
  };

  Group* find(c10d::ProcessGroup* process_group) {
    for (size_t at = start(process_group), tried = 0; tried < entries_.size(); at = next(at), ++tried) {
      const void* address = entries_[at].address.load(std::memory_order_acquire);
      if (address == nullptr) return nullptr;
      if (address != process_group) continue;
      Group* group = entries_[at].group.load(std::memory_order_acquire);
      const bool same = group != nullptr && (!group->checked || (process_group->getGroupName() == group->torch_name &&
                                                                 process_group->getSize() == group->size));
      return same ? group : nullptr;
    }
    return nullptr;
  }

  Entry* place(const void* process_group) {
    for (size_t at = start(process_group), tried = 0; tried < entries_.size(); at = next(at), ++tried) {
      const void* address = entries_[at].address.load();
      if (address != nullptr && address != process_group) continue;
      entries_[at].address.store(process_group, std::memory_order_release);
      return &entries_[at];
    }
    throw std::length_error("more than 4096 process groups");
  }

  static size_t start(const void* address) {
    return (reinterpret_cast<uint64_t>(address) >> 4) * 0x9E3779B97F4A7C15ull >> (64 - 12);
  }
  static size_t next(size_t at) { return (at + 1) % 4096; }

  std::array<Entry, 4096> entries_;
  std::mutex lock_;
  std::vector<std::shared_ptr<Group>> owned_;
};

}  // namespace commlens

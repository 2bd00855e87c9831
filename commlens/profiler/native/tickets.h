// Finds the collective that a later wait is for, by the address of its Work or of its output.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>

#include "slots.h"

namespace commlens {

// Fixed room: of works that nobody waits for (those of DDP's reducer) the oldest makes place.
class Tickets {
 public:
  void put(const void* address, const Ticket& ticket) {
    Set& set = set_of(address);
    std::lock_guard<std::mutex> guard(set.lock);
    Entry* place = &set.entries[0];
    for (Entry& entry : set.entries) {
      if (entry.address == address) {
        place = &entry;
        break;
      }
      if (entry.ticket.event < place->ticket.event) place = &entry;
    }
    *place = {address, ticket};
  }

  // The ticket under `address`, which forgets it; event kMissing where there is none.
  Ticket take(const void* address) {
    Set& set = set_of(address);
    std::lock_guard<std::mutex> guard(set.lock);
    for (Entry& entry : set.entries) {
      if (entry.address != address || entry.ticket.event == kMissing) continue;
      const Ticket found = entry.ticket;
      entry = {};
      return found;
    }
    return {};
  }

 private:
  struct Entry {
    const void* address = nullptr;
    Ticket ticket;
  };
  struct Set {
    std::mutex lock;
    std::array<Entry, 16> entries;
  };

  Set& set_of(const void* address) {
    const uint64_t mixed = (reinterpret_cast<uint64_t>(address) >> 4) * 0x9E3779B97F4A7C15ull;
    return sets_[mixed >> (64 - 11)];
  }

  std::array<Set, 2048> sets_;
};

}  // namespace commlens

// The recorder's book of collectives, written by hooks on any thread; see collectives.py, whose rules these are.
#pragma once

#include <time.h>

#include <array>
#include <atomic>
#include <exception>
#include <mutex>
#include <string>
#include <utility>

#include "groups.h"
#include "slots.h"
#include "tickets.h"

namespace commlens {

inline int64_t now(clockid_t clock = CLOCK_MONOTONIC) {  // that of Python's perf_counter_ns
  timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1'000'000'000ll + time.tv_nsec;
}

struct Codes {  // of the schema's vocabularies
  int8_t host, wait, enqueue_only, other_dtype, barrier, send, recv, all_reduce;
  std::array<int8_t, 64> dtypes;  // by torch's ScalarType
};

struct Operator {  // operators.py
  int8_t op;
  int inputs, outputs, group, peer, is_async;
  bool has_work;
};

class Log {
 public:
  Log(uint32_t capacity, int64_t linger_ns, int64_t forget_ns, Codes codes_, Groups::Resolve resolve_)
      : codes(codes_), resolve(std::move(resolve_)), slots(capacity, linger_ns, forget_ns, codes_.enqueue_only) {}

  const Codes codes;
  const Groups::Resolve resolve;
  Slots slots;
  Groups groups;
  Tickets works, outputs;
  std::atomic<bool> is_open{false};
  std::atomic<int32_t> step{0};
  std::atomic<int64_t> backward{0};  // number of the backward under way, 0 outside
  std::atomic<int64_t> hook_ns{0};
  std::atomic<int64_t> pending{0};  // ends that are still to be seen

  int64_t next_event() { return events_.fetch_add(1, std::memory_order_relaxed); }

  // Small number of the calling thread; 0 is the first to ask.
  int8_t thread() {
    static thread_local std::pair<const Log*, int> known{nullptr, 0};
    if (known.first != this) known = {this, threads_.fetch_add(1)};
    return static_cast<int8_t>(known.second < 127 ? known.second : 127);
  }

  void started(const Ticket& ticket, int64_t at_ns) {
    slots.change(ticket.slot, ticket.event, [&](Row& row) {
      if (row.started_ns < 0) row.started_ns = at_ns;
    });
  }

  // The backend has done its part: the later of several ends holds.
  void ended(const Ticket& ticket, int64_t at_ns) {
    slots.change(ticket.slot, ticket.event, [&](Row& row) {
      if (at_ns > row.completed_ns) row.completed_ns = at_ns;
      row.timing = codes.host;
    });
  }

  void waited(const Ticket& ticket, int64_t from_ns, int64_t to_ns) {
    slots.change(ticket.slot, ticket.event, [&](Row& row) {
      row.waited_ns = from_ns;
      row.blocked_ns = to_ns - from_ns;
      if (ticket.ends_at_wait && row.completed_ns < 0) row.completed_ns = to_ns;
    });
  }

  bool has_ended(const Ticket& ticket) {
    bool ended = false;
    slots.change(ticket.slot, ticket.event, [&](Row& row) { ended = row.completed_ns >= 0; });
    return ended;
  }

  // A failed collective has no end.
  void failed(const Ticket& ticket) {
    slots.change(ticket.slot, ticket.event, [](Row& row) { row.completed_ns = kMissing; });
  }

  void broke(const char* why) {
    std::lock_guard<std::mutex> guard(lock_);
    if (failure_.empty()) failure_ = why;
    is_open = false;
  }
  std::string failure() {
    std::lock_guard<std::mutex> guard(lock_);
    return failure_;
  }

 private:
  std::atomic<int64_t> events_{0};
  std::atomic<int> threads_{0};
  std::mutex lock_;
  std::string failure_;
};

// The recording that the hooks write into; they stay installed for the life of the process.
inline std::atomic<Log*> current{nullptr};

inline Log* recording() {
  Log* log = current.load(std::memory_order_acquire);
  return log != nullptr && log->is_open.load(std::memory_order_relaxed) ? log : nullptr;
}

}  // namespace commlens

// Preallocated room for collectives that are under way: the same rows and rules as slots.py, without the
// interpreter lock. Memory is fixed; a collective that finds no slot is counted, not recorded.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

namespace commlens {

constexpr int64_t kMissing = -1;

#pragma pack(push, 1)
struct Row {  // slots.py: ROW
  int64_t event, seq, in_bytes, out_bytes, issued_ns, started_ns, completed_ns, waited_ns, blocked_ns, due_ns;
  int32_t group_size, peer, step, bucket;
  int16_t group;
  int8_t op, dtype, timing, thread;
};
#pragma pack(pop)

struct Ticket {  // finds a collective again
  int64_t event = kMissing;
  int32_t slot = kMissing;
  bool ends_at_wait = false;  // the wait's return is the end, if nothing showed it before
};

class Slots {
 public:
  Slots(uint32_t capacity, int64_t linger_ns, int64_t forget_ns, int8_t enqueue_only)
      : capacity_(capacity),
        linger_ns_(linger_ns),
        forget_ns_(forget_ns),
        enqueue_only_(enqueue_only),
        rows_(new Row[capacity]),
        owners_(new std::atomic<int64_t>[capacity]),
        seen_(new int8_t[capacity]()),
        free_(new std::atomic<uint32_t>[capacity]) {
    for (uint32_t slot = 0; slot < capacity; ++slot) {
      owners_[slot].store(kMissing, std::memory_order_relaxed);
      free_[slot].store(slot, std::memory_order_relaxed);
    }
    tail_.store(capacity);
  }

  // Fills a free slot; kMissing where there is none. Any thread.
  int32_t issue(const Row& row) {
    uint64_t head = head_.load(std::memory_order_acquire);  // before tail_, which is never behind what is read here
    uint32_t slot;
    do {
      if (head == tail_.load(std::memory_order_acquire)) {
        dropped_.fetch_add(1, std::memory_order_relaxed);
        return kMissing;
      }
      slot = free_[head % capacity_].load(std::memory_order_relaxed);
    } while (!head_.compare_exchange_weak(head, head + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    rows_[slot] = row;
    owners_[slot].store(row.event, std::memory_order_release);
    return static_cast<int32_t>(slot);
  }

  // Changes the row of `event`; one whose slot has moved on to another is left alone. Any thread.
  template <typename Change>
  void change(int32_t slot, int64_t event, Change&& change) {
    if (slot < 0 || !lock(slot, event)) return;
    change(rows_[slot]);
    owners_[slot].store(event, std::memory_order_release);
  }

  // Forgets a collective whose call raised before it was issued. Any thread.
  void cancel(int32_t slot, int64_t event) {
    change(slot, event, [](Row& row) { row.issued_ns = kMissing; });
  }

  // Rows about which something was learnt since the last drain, with what was drained before (as bits of Known) in the
  // place of due_ns; gives back the finished ones. One thread at a time.
  std::string drain(int64_t now_ns) {
    std::string rows;
    const int64_t linger = used() * 2 < capacity_ ? linger_ns_ : 0;  // under pressure nothing lingers
    for (uint32_t slot = 0; slot < capacity_; ++slot) {
      const int64_t event = owners_[slot].load(std::memory_order_acquire) & ~kLocked;
      if (event < 0 || !lock(slot, event)) continue;
      if (look(rows_[slot], seen_[slot], now_ns, linger, rows)) {
        seen_[slot] = 0;
        owners_[slot].store(kMissing, std::memory_order_release);
        give_back(slot);
      } else {
        owners_[slot].store(event, std::memory_order_release);
      }
    }
    return rows;
  }

  uint64_t used() const { return capacity_ - (tail_.load() - head_.load()); }
  int64_t take_issued() { return issued_.exchange(0); }
  int64_t take_dropped() { return dropped_.exchange(0); }
  int64_t dropped() const { return dropped_.load(); }

 private:
  static constexpr int64_t kLocked = int64_t{1} << 62;
  enum Known : int8_t { kIssued = 1, kStarted = 2, kEnded = 4, kWaited = 8 };

  bool lock(int32_t slot, int64_t event) {
    int64_t expected = event;
    while (!owners_[slot].compare_exchange_weak(expected, event | kLocked, std::memory_order_acquire)) {
      if (expected != event && expected != (event | kLocked)) return false;
      if (expected != event) std::this_thread::yield();  // another thread writes into this very row
      expected = event;
    }
    return true;
  }

  bool look(Row& row, int8_t& seen, int64_t now_ns, int64_t linger, std::string& rows) {
    if (row.issued_ns == kMissing) return true;  // cancelled
    const bool ended = row.completed_ns >= 0, waited = row.waited_ns >= 0;
    const int8_t known = kIssued | (row.started_ns >= 0 ? kStarted : 0) | (ended ? kEnded : 0) | (waited ? kWaited : 0);
    if (seen == 0) issued_.fetch_add(1, std::memory_order_relaxed);
    if (known != seen) {
      Row told = row;
      told.due_ns = seen;
      rows.append(reinterpret_cast<const char*>(&told), sizeof(Row));
    }
    seen = known;
    const bool finished = (ended && waited) || (row.due_ns >= 0 && now_ns >= row.due_ns);
    if (row.due_ns < 0) {
      if (ended || waited || row.timing == enqueue_only_) row.due_ns = now_ns + linger;
      else if (now_ns - row.issued_ns > forget_ns_) row.due_ns = now_ns;
    }
    return finished;
  }

  void give_back(uint32_t slot) {
    const uint64_t tail = tail_.load(std::memory_order_relaxed);
    free_[tail % capacity_].store(slot, std::memory_order_relaxed);
    tail_.store(tail + 1, std::memory_order_release);
  }

  const uint32_t capacity_;
  const int64_t linger_ns_, forget_ns_;
  const int8_t enqueue_only_;
  std::unique_ptr<Row[]> rows_;
  std::unique_ptr<std::atomic<int64_t>[]> owners_;  // event of the slot; with kLocked while someone writes
  std::unique_ptr<int8_t[]> seen_;                  // what of a row has been drained
  std::unique_ptr<std::atomic<uint32_t>[]> free_;   // a ring of free slots
  std::atomic<uint64_t> head_{0}, tail_{0};
  std::atomic<int64_t> issued_{0}, dropped_{0};
};

}  // namespace commlens

// Many threads issue, end, wait for and cancel collectives while one drains: the room for them (slots.h) and the way
// back to them (tickets.h) without torch, so that compilers' sanitizers see every access. Says what it found wrong.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "slots.h"
#include "tickets.h"

namespace {

using namespace commlens;

constexpr int kThreads = 4;
constexpr int64_t kEach = 6000, kEvents = kThreads * kEach;  // a thread; all
constexpr int64_t kFar = int64_t{1} << 60;                   // longer than any clock here goes
constexpr int8_t kEnqueueOnly = 9;
std::atomic<int> wrong{0};

void expect(bool holds, const char* what, int64_t event) {
  if (!holds && wrong.fetch_add(1) < 10) std::printf("event %lld: %s\n", static_cast<long long>(event), what);
}

// A row each of whose values is told by its event.
Row row_of(int64_t event) {
  Row row;
  row.event = event;
  row.seq = event * 3;
  row.in_bytes = event * 5;
  row.out_bytes = event * 7;
  row.issued_ns = event + 11;
  row.started_ns = row.completed_ns = row.waited_ns = row.blocked_ns = row.due_ns = kMissing;
  row.group_size = static_cast<int32_t>(event);
  row.peer = static_cast<int32_t>(event + 1);
  row.step = static_cast<int32_t>(event + 2);
  row.bucket = static_cast<int32_t>(event + 3);
  row.group = static_cast<int16_t>(event % 30000);
  row.op = row.dtype = row.timing = row.thread = static_cast<int8_t>(event % 8);
  return row;
}

void start(Row& row) { row.started_ns = row.event * 13; }
void complete(Row& row) { row.completed_ns = row.event * 17; }
void wait(Row& row) {
  row.waited_ns = row.event * 19;
  row.blocked_ns = row.event * 23;
}

bool is_one_event(const Row& row) {
  Row whole = row_of(row.event);
  if (row.started_ns != kMissing) start(whole);
  if (row.completed_ns != kMissing) complete(whole);
  if (row.waited_ns != kMissing) wait(whole);
  whole.due_ns = row.due_ns;
  return std::memcmp(&whole, &row, sizeof(Row)) == 0;
}

// The rows that one thread drained.
struct Drained {
  std::vector<Row> latest = std::vector<Row>(kEvents);
  std::vector<int> times = std::vector<int>(kEvents);

  void add(const std::string& bytes) {
    expect(bytes.size() % sizeof(Row) == 0, "half a row was drained", kMissing);
    for (size_t at = 0; at + sizeof(Row) <= bytes.size(); at += sizeof(Row)) {
      Row row;
      std::memcpy(&row, bytes.data() + at, sizeof(Row));
      const bool known = row.event >= 0 && row.event < kEvents && is_one_event(row);
      expect(known, "a row of more than one event", row.event);
      if (!known) continue;
      latest[row.event] = row;
      ++times[row.event];
    }
  }
  int64_t seen() const { return kEvents - std::count(times.begin(), times.end(), 0); }
};

// Runs `act(thread)` on every thread while this one drains, then drains what is left.
template <typename Act>
Drained run(Slots& slots, Act&& act) {
  Drained drained;
  std::atomic<int> at_work{kThreads};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      act(thread);
      at_work.fetch_sub(1, std::memory_order_relaxed);
    });
  int64_t clock = 0;
  while (at_work.load(std::memory_order_relaxed) > 0) drained.add(slots.drain(++clock));
  for (std::thread& thread : threads) thread.join();
  drained.add(slots.drain(++clock));                                // what happened since
  for (int more = 0; more < 3; ++more) drained.add(slots.drain(2 * kFar));  // what still lingers
  expect(slots.used() == 0, "a slot was not given back", kMissing);
  return drained;
}

bool is_cancelled(int64_t event) { return event % 7 == 0; }

// With room enough every event must come out, with all that was noted of it by three threads. Tickets travel without
// any ordering of memory beside that of the slots themselves.
void nothing_is_lost() {
  Slots slots(4096, kFar, kFar, kEnqueueOnly);
  std::vector<std::atomic<int32_t>> published(kEvents);  // slot + 1
  const Drained drained = run(slots, [&](int thread) {
    const int64_t own = thread * kEach, ends = (thread + 1) % kThreads * kEach, waits = (thread + 2) % kThreads * kEach;
    const auto noted = [&](int64_t event, auto&& change) {
      const int32_t slot = is_cancelled(event) ? 0 : published[event].load(std::memory_order_relaxed);
      if (slot > 0) slots.change(slot - 1, event, [&](Row& row) {
        expect(row.event == event && is_one_event(row), "another's row was given to be changed", event);
        change(row);
      });
      return slot > 0 || is_cancelled(event);
    };
    for (int64_t issued = 0, ended = 0, waited = 0; issued < kEach || ended < kEach || waited < kEach;) {
      if (issued < kEach && slots.used() < 1024) {
        const int64_t event = own + issued++;
        const int32_t slot = slots.issue(row_of(event));
        expect(slot >= 0, "no slot, in spite of room", event);
        if (is_cancelled(event)) slots.cancel(slot, event);
        else published[event].store(slot + 1, std::memory_order_relaxed);
      } else {
        std::this_thread::yield();
      }
      if (ended < kEach && noted(ends + ended, [](Row& row) { start(row), complete(row); })) ++ended;
      if (waited < kEach && noted(waits + waited, [](Row& row) { wait(row); })) ++waited;
    }
  });
  for (int64_t event = 0; event < kEvents; ++event) {
    const Row& row = drained.latest[event];
    if (is_cancelled(event)) {
      expect(drained.times[event] == 0 || row.waited_ns == kMissing, "cancelled, yet waited for", event);
      continue;
    }
    expect(drained.times[event] > 0, "never drained", event);
    expect(row.started_ns >= 0 && row.completed_ns >= 0 && row.waited_ns >= 0, "not drained to its end", event);
  }
  expect(slots.dropped() == 0, "dropped, in spite of room", kMissing);
}

// Where there are far too few slots, each event is drained, counted as dropped, or was cancelled before a drain saw it;
// changes come late, to slots that others have by then.
void what_finds_no_slot_is_counted() {
  Slots slots(16, 0, kFar, kEnqueueOnly);
  std::atomic<int64_t> refused{0}, cancelled{0};
  const Drained drained = run(slots, [&](int thread) {
    std::vector<Ticket> before;
    for (int64_t event = thread * kEach; event < (thread + 1) * kEach; ++event) {
      const int32_t slot = slots.issue(row_of(event));
      if (slot < 0) {
        refused.fetch_add(1, std::memory_order_relaxed);
        if (event % 64 == 0) std::this_thread::yield();
      } else if (is_cancelled(event)) {
        slots.cancel(slot, event);
        cancelled.fetch_add(1, std::memory_order_relaxed);
      } else {
        before.push_back({event, slot, true});
      }
      if (before.size() < 4) continue;
      for (const Ticket& ticket : before) {
        slots.change(ticket.slot, ticket.event, complete);
        slots.change(ticket.slot, ticket.event, wait);
        slots.change(ticket.slot, ticket.event, [&](Row& row) {
          expect(row.event == ticket.event && is_one_event(row), "another's row was given to be changed", row.event);
        });
      }
      before.erase(before.begin(), before.end() - 1);  // the last is noted once more, when its slot may be another's
    }
    for (const Ticket& ticket : before) slots.change(ticket.slot, ticket.event, complete);
  });
  int64_t unseen = 0;
  for (int64_t event = 0; event < kEvents; ++event) unseen += is_cancelled(event) && drained.times[event] == 0;
  const int64_t issued = slots.take_issued(), dropped = slots.take_dropped();
  expect(dropped == refused && dropped > 0, "the count of dropped events is wrong", dropped);
  expect(issued == drained.seen(), "the count of drained events is wrong", issued);
  expect(issued + dropped <= kEvents && issued + dropped + std::min<int64_t>(unseen, cancelled) >= kEvents,
         "events were lost or counted twice", issued + dropped);
}

// Addresses are used again and again, as those of Works are: a ticket is found under its own address, once at most.
void tickets_are_found_once() {
  constexpr int64_t kAddresses = 61;
  static Tickets tickets;
  std::vector<std::atomic<int>> taken(kEvents);
  std::vector<char> memory(kAddresses * 64);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread)
    threads.emplace_back([&, thread] {
      for (int64_t event = thread * kEach; event < (thread + 1) * kEach; ++event) {
        tickets.put(&memory[event % kAddresses * 64], {event, static_cast<int32_t>(event % 1000), event % 2 == 0});
        const int64_t place = event * 31 % kAddresses;
        const Ticket found = tickets.take(&memory[place * 64]);
        if (found.event == kMissing) continue;
        const bool own = found.event % kAddresses == place && found.slot == found.event % 1000 &&
                         found.ends_at_wait == (found.event % 2 == 0);
        expect(own, "found under another's address", found.event);
        expect(taken[found.event].fetch_add(1, std::memory_order_relaxed) == 0, "found twice", found.event);
      }
    });
  for (std::thread& thread : threads) thread.join();
  const auto found = std::count_if(taken.begin(), taken.end(), [](const auto& times) { return times.load() > 0; });
  expect(found > kEach / 10, "hardly any ticket was found again", found);
}

// Works that nobody waits for do not push out those that came last.
void the_oldest_make_place() {
  static Tickets tickets;
  const auto address = [](int64_t event) { return reinterpret_cast<const void*>((event + 1) * 16); };
  for (int64_t event = 0; event < 1'000'000; ++event) tickets.put(address(event), {event, 0, false});
  for (int64_t event = 999'000; event < 1'000'000; ++event)
    expect(tickets.take(address(event)).event == event, "pushed out by older ones", event);
}

}  // namespace

int main() {
  nothing_is_lost();
  what_finds_no_slot_is_counted();
  tickets_are_found_once();
  the_oldest_make_place();
  std::printf("%d wrong\n", wrong.load());
  return wrong.load() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

// Kernels at the BackendSelect key of every c10d operator: they run just before the backend's own, whoever issues the
// collective, note it and redispatch. See collectives.py, which does the same in Python.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <chrono>
#include <optional>
#include <utility>

#include "calls.h"
#include "log.h"
#include "spans.h"

namespace commlens {

constexpr int kSampleOfCalls = 17;  // prime: calls that take turns are sampled evenly; reading the CPU clock costs

inline c10::DispatchKeySet after_backend_select() {
  return c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::BackendSelect);
}

// CPU time of our own work on the calling thread, for one call in kSampleOfCalls.
class OwnCost {
 public:
  explicit OwnCost(Log& log) : log_(log) {
    static thread_local int calls = 0;
    sampled_ = calls++ % kSampleOfCalls == 0;
    go_on();
  }
  void go_on() {
    if (sampled_) from_ = now(CLOCK_THREAD_CPUTIME_ID);
  }
  void pause() {
    if (sampled_) spent_ += now(CLOCK_THREAD_CPUTIME_ID) - from_;
  }
  ~OwnCost() {
    if (sampled_) log_.hook_ns.fetch_add(kSampleOfCalls * spent_, std::memory_order_relaxed);
  }

 private:
  Log& log_;
  bool sampled_;
  int64_t from_ = 0, spent_ = 0;
};

struct Issued {  // one collective between its issue and the return of the call
  Ticket ticket;
  Group* group;
  bool host, is_sync, spans;
  int64_t issued_ns;
  const void* output;  // where the first result will be
};

// The synchronous call of this thread whose wait is to come.
struct Last {
  const c10d::Work* work = nullptr;
  Ticket ticket;
  int64_t issued_ns = 0;
};
inline Last& last() {
  static thread_local Last value;
  return value;
}

class Hook final : public c10::OperatorKernel {
 public:
  explicit Hook(Operator op) : op_(op) {}

  void operator()(const c10::OperatorHandle& handle, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    const auto below = keys & after_backend_select();
    Log* live = recording();
    if (live == nullptr) return handle.redispatchBoxed(below, stack);
    Log& log = *live;
    OwnCost cost(log);
    std::optional<Issued> issued;
    guarded(log, [&] { issued = begin(log, *stack, handle.schema().arguments().size()); });
    cost.pause();
    if (!issued) return handle.redispatchBoxed(below, stack);
    const auto tag = issued->spans ? std::make_shared<Tag>(&log, issued->ticket) : nullptr;
    try {
      c10::DebugInfoGuard guard(tag_kind(), tag);
      handle.redispatchBoxed(below, stack);
    } catch (...) {
      if (op_.op != log.codes.barrier) log.slots.cancel(issued->ticket.slot, issued->ticket.event);
      throw;
    }
    // Nobody took it along: this backend's work, like that of tensors without memory, shows no span.
    if (tag != nullptr && tag.use_count() == 1 && !tag->has_arrived) issued->spans = false;
    cost.go_on();
    const int64_t returned_ns = op_.has_work ? 0 : now();
    guarded(log, [&] { finish(log, *stack, *issued, returned_ns); });
    cost.pause();
  }

 private:
  template <typename Action>
  static void guarded(Log& log, Action&& action) {
    try {
      action();
    } catch (const std::exception& error) {
      log.broke(error.what());
    } catch (...) {
      log.broke("unknown error");
    }
  }

  std::optional<Issued> begin(Log& log, const torch::jit::Stack& stack, size_t num_arguments) {
    const c10::IValue* args = stack.data() + (stack.size() - num_arguments);
    Group* group = log.groups.of(wrapped<c10d::ProcessGroup>(args[op_.group]), log.resolve);
    const bool message = op_.op == log.codes.send || op_.op == log.codes.recv;
    const int32_t peer = op_.peer < 0 ? kMissing : group->global_rank(args[op_.peer].toInt());
    const int64_t seq = message ? group->next_message(peer, op_.op == log.codes.send)
                                : group->sequence.fetch_add(1, std::memory_order_relaxed);
    at::Tensor tensor = first_tensor(args[0]);
    if (!tensor.defined() && op_.inputs >= 0) tensor = first_tensor(args[op_.inputs]);
    const bool host = !tensor.defined() || tensor.is_cpu() ? group->host_cpu : group->host_device;
    const bool is_sync = op_.is_async >= 0 && !args[op_.is_async].toBool();
    const bool spans = host && group->spans && !message && at::isRecordFunctionEnabled();  // jobs may switch it off
    Row row;
    row.event = log.next_event();
    row.seq = seq;
    row.in_bytes = op_.inputs < 0 ? 0 : num_bytes(args[op_.inputs]);
    row.out_bytes = op_.outputs == op_.inputs ? row.in_bytes : op_.outputs < 0 ? 0 : num_bytes(args[op_.outputs]);
    row.started_ns = row.completed_ns = row.waited_ns = row.blocked_ns = row.due_ns = kMissing;
    row.group_size = group->size;
    row.peer = peer;
    row.step = log.step.load(std::memory_order_relaxed);
    const int64_t backward = log.backward.load(std::memory_order_relaxed);
    row.bucket = backward && op_.op == log.codes.all_reduce ? group->bucket(backward, row.in_bytes) : kMissing;
    row.group = group->code;
    row.op = op_.op;
    row.dtype = op_.op == log.codes.barrier || !tensor.defined() ? kMissing : dtype(log, tensor);
    row.timing = !host ? log.codes.enqueue_only : is_sync || !op_.has_work ? log.codes.host : log.codes.wait;
    row.thread = log.thread();
    row.issued_ns = now();
    const Ticket ticket{row.event, log.slots.issue(row), host};
    const bool asked_later = !is_sync && op_.outputs >= 0;
    const void* output = asked_later ? address_of(first_tensor(args[op_.outputs])) : nullptr;
    return Issued{ticket, group, host, is_sync, spans, row.issued_ns, output};
  }

  static int8_t dtype(const Log& log, const at::Tensor& tensor) {
    const auto type = static_cast<size_t>(tensor.scalar_type());
    return type < log.codes.dtypes.size() ? log.codes.dtypes[type] : log.codes.other_dtype;
  }

  void finish(Log& log, const torch::jit::Stack& stack, const Issued& issued, int64_t returned_ns) {
    if (!op_.has_work) {  // monitored_barrier: the call itself stands still
      log.waited(issued.ticket, issued.issued_ns, returned_ns);
      return;
    }
    auto* work = wrapped<c10d::Work>(stack.back());
    if (work == nullptr) return;
    if (issued.is_sync) {
      last() = {work, issued.ticket, issued.issued_ns};
      return;
    }
    if (last().work == work) last() = {};  // that of a synchronous call that nobody waited for had this address
    if (issued.host && !issued.spans) watch(log, *work, issued);
    log.works.put(work, issued.ticket);
    if (issued.output != nullptr) log.outputs.put(issued.output, issued.ticket);
  }

  // Sees the end by the Work's future, where it has one.
  void watch(Log& log, c10d::Work& work, const Issued& issued) {
    const uint32_t bit = 1u << op_.op;
    if (issued.group->without_future.load(std::memory_order_relaxed) & bit) return;
    c10::intrusive_ptr<c10::ivalue::Future> future;
    try {
      future = work.getFuture();
    } catch (const std::exception&) {  // Gloo's send and recv have none
      issued.group->without_future.fetch_or(bit);
      return;
    }
    log.pending.fetch_add(1, std::memory_order_relaxed);
    future->addCallback([log = &log, ticket = issued.ticket](c10::ivalue::Future& done) {
      const int64_t at_ns = now();
      log->pending.fetch_sub(1, std::memory_order_relaxed);
      if (!done.hasError()) log->ended(ticket, at_ns);
    });
  }

  const Operator op_;
};

// A Work of the job's own Python class may raise: that is not to be seen where it did not ask.
inline bool is_over(c10d::Work& work) {
  try {
    return work.isCompleted();
  } catch (const std::exception&) {
    return true;
  }
}

// The collective that `work` is of; none where `work` only has the address of one that was dropped unwaited.
inline Last collective_of(Log& log, c10d::Work& work) {
  Last found;
  if (last().work == &work) {
    std::swap(found, last());
    return found;
  }
  found.ticket = log.works.take(&work);
  if (found.ticket.event != kMissing && log.has_ended(found.ticket) && !is_over(work)) found.ticket = {};
  return found;
}

// A wait by Python.
inline bool timed_wait(Log& log, c10d::Work& work, std::chrono::milliseconds timeout) {
  const Last found = collective_of(log, work);
  const int64_t from_ns = now();
  try {
    const bool done = work.wait(timeout);
    const int64_t to_ns = now();
    OwnCost cost(log);
    // A synchronous call does nothing between issue and wait: its thread stands still from the issue on.
    log.waited(found.ticket, found.work != nullptr ? found.issued_ns : from_ns, to_ns);
    cost.pause();
    return done;
  } catch (...) {
    log.failed(found.ticket);
    if (found.ticket.event != kMissing) log.works.put(&work, found.ticket);  // it may be waited for again
    throw;
  }
}

// A wait by a functional collective's wait_tensor.
class WaitTensor final : public c10::OperatorKernel {
 public:
  void operator()(const c10::OperatorHandle& handle, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
    const auto below = keys & after_backend_select();
    Log* log = recording();
    if (log == nullptr) return handle.redispatchBoxed(below, stack);
    const void* address = address_of(first_tensor(stack->back()));
    const int64_t from_ns = now();
    handle.redispatchBoxed(below, stack);
    if (address != nullptr) log->waited(log->outputs.take(address), from_ns, now());
  }
};

}  // namespace commlens

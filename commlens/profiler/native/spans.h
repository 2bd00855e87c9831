// When Gloo really executes: torch marks its worker threads' spans for profilers. Which collective a span belongs to
// travels with the thread state that torch hands from the issuing thread to the worker.
#pragma once

#include <ATen/ThreadLocalState.h>
#include <ATen/record_function.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <string_view>
#include <type_traits>
#include <utility>

#include "log.h"

namespace commlens {

// Whoever may open a span for the collective holds its tag: once nobody does, or one has ended, no end is awaited.
struct Tag : c10::DebugInfoBase, std::enable_shared_from_this<Tag> {
  Tag(Log* log_, const Ticket& ticket_) : log(log_), ticket(ticket_) {
    log->pending.fetch_add(1, std::memory_order_relaxed);
  }
  ~Tag() override { arrived(); }

  void arrived() {
    if (!has_arrived.exchange(true)) log->pending.fetch_sub(1, std::memory_order_relaxed);
  }

  Log* const log;
  const Ticket ticket;
  std::atomic<bool> has_arrived{false};
};

// torch 2.13 lets anyone have a kind of his own, before it there was a list; nothing but torch's tests used the last.
template <typename Kind>
Kind own_kind() {
  if constexpr (std::is_enum_v<Kind>) {
    return Kind::TEST_INFO_2;
  } else {
    static constexpr std::string_view name = "COMMLENS";
    return Kind(&name);
  }
}

inline c10::DebugInfoKind tag_kind() { return own_kind<c10::DebugInfoKind>(); }

struct Span : at::ObserverContext {
  explicit Span(std::shared_ptr<Tag> tag_) : tag(std::move(tag_)) {}
  std::shared_ptr<Tag> tag;
};

inline std::unique_ptr<at::ObserverContext> span_begins(const at::RecordFunction& function) {
  auto* tag = static_cast<Tag*>(c10::ThreadLocalDebugInfo::get(tag_kind()));
  if (tag == nullptr || std::strncmp(function.name(), "gloo:", 5) != 0) return nullptr;
  tag->log->started(tag->ticket, now());
  return std::make_unique<Span>(tag->shared_from_this());
}

inline void span_ends(const at::RecordFunction&, at::ObserverContext* context) {
  auto* span = static_cast<Span*>(context);
  if (span == nullptr) return;
  Tag& tag = *span->tag;
  // Gloo ends the span of a failed operation while it handles the error.
  if (!std::current_exception()) tag.log->ended(tag.ticket, now());
  tag.arrived();
}

inline at::CallbackHandle watch_spans() {
  return at::addGlobalCallback(at::RecordFunctionCallback(span_begins, span_ends)
                                   .needsInputs(false)
                                   .needsOutputs(false)
                                   .scopes({at::RecordScope::USER_SCOPE}));
}

// What a span costs, issuing thread and worker together, ns: the least of a few hundred. Done as Gloo does it.
inline int64_t span_cost_ns(Log* log) {
  int64_t least = INT64_MAX;
  for (int round = 0; round < 300; ++round) {
    const int64_t from_ns = now();
    c10::DebugInfoGuard guard(tag_kind(), std::make_shared<Tag>(log, Ticket{}));
    auto function = std::make_shared<at::RecordFunction>(at::RecordScope::USER_SCOPE);
    auto begin = at::wrapPropagateTLSState([function] {
      function->_setAsync();
      function->before("gloo:cost");
    });
    auto end = at::wrapPropagateTLSState([function] { function->end(); });
    begin();
    end();
    least = std::min(least, now() - from_ns);
  }
  return least;
}

}  // namespace commlens

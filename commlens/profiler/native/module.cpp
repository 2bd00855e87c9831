// The native recorder as a Python module: hooks in C++, everything that is not on the path of a collective in Python.
// A collective costs no interpreter lock; see native_log.py for the other side.
#include <torch/csrc/utils/pybind.h>

#include <pybind11/chrono.h>
#include <pybind11/functional.h>
#include <pybind11/stl.h>

#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hooks.h"

namespace py = pybind11;

namespace commlens {
namespace {

auto& libraries = *new std::vector<std::unique_ptr<torch::Library>>;  // not freed at exit: threads may be in a kernel
at::CallbackHandle spans = at::INVALID_CALLBACK_HANDLE;
py::object* plain_wait = nullptr;

// (code, size, host_cpu, host_device, spans, checked, ranks, name, layouts), asked of Python once a group.
std::shared_ptr<Group> resolved(const py::object& resolve, c10d::ProcessGroup* process_group) {
  py::gil_scoped_acquire lock;
  auto held = c10::intrusive_ptr<c10d::ProcessGroup>::reclaim_copy(process_group);
  const py::tuple said = resolve(held, reinterpret_cast<uintptr_t>(process_group));
  auto group = std::make_shared<Group>();
  group->code = said[0].cast<int16_t>();
  group->size = said[1].cast<int32_t>();
  group->host_cpu = said[2].cast<bool>();
  group->host_device = said[3].cast<bool>();
  group->spans = said[4].cast<bool>();
  group->checked = said[5].cast<bool>();
  group->torch_name = process_group->getGroupName();
  group->ranks = said[6].cast<std::vector<int64_t>>();
  group->name = said[7].cast<std::string>();
  group->set_layouts(said[8].cast<std::vector<std::vector<int64_t>>>());
  return group;
}

bool has_operator(const std::string& name) {
  return c10::Dispatcher::singleton().findSchema({"c10d::" + name, ""}).has_value();
}

bool wait(c10d::Work& work, std::chrono::milliseconds timeout) {
  Log* log = recording();
  return log == nullptr ? work.wait(timeout) : timed_wait(*log, work, timeout);
}

void install_wait() {
  py::object work = py::module_::import("torch._C._distributed_c10d").attr("Work");
  plain_wait = new py::object(work.attr("__dict__")["wait"]);
  py::setattr(work, "wait",
              py::cpp_function(wait, py::name("wait"), py::is_method(work), py::arg("timeout") = kNoTimeout,
                               py::call_guard<py::gil_scoped_release>(), plain_wait->attr("__doc__").cast<std::string>().c_str()));
}

// Puts the hooks in. Returns the operators that this torch does not have.
std::vector<std::string> install(const std::map<std::string, py::tuple>& operators) {
  std::vector<std::string> absent;
  auto library = std::make_unique<torch::Library>(torch::Library::IMPL, "c10d", std::nullopt, __FILE__, __LINE__);
  for (const auto& [name, where] : operators) {
    if (!has_operator(name)) {
      absent.push_back(name);
      continue;
    }
    const Operator op{where[0].cast<int8_t>(), where[1].cast<int>(), where[2].cast<int>(), where[3].cast<int>(),
                      where[4].cast<int>(),    where[5].cast<int>(), where[6].cast<bool>()};
    library->impl(name.c_str(),
                  torch::dispatch(c10::DispatchKey::BackendSelect,
                                  torch::CppFunction::makeFromBoxedFunctor(std::make_unique<Hook>(op))));
  }
  libraries.push_back(std::move(library));
  auto waits = std::make_unique<torch::Library>(torch::Library::IMPL, "_c10d_functional", std::nullopt, __FILE__, __LINE__);
  waits->impl("wait_tensor",
              torch::dispatch(c10::DispatchKey::BackendSelect,
                              torch::CppFunction::makeFromBoxedFunctor(std::make_unique<WaitTensor>())));
  libraries.push_back(std::move(waits));
  spans = watch_spans();
  install_wait();
  return absent;
}

// For benchmarks: safe only while nothing is in flight.
void uninstall() {
  libraries.clear();
  if (spans != at::INVALID_CALLBACK_HANDLE) at::removeCallback(spans);
  spans = at::INVALID_CALLBACK_HANDLE;
  if (plain_wait != nullptr)
    py::setattr(py::module_::import("torch._C._distributed_c10d").attr("Work"), "wait", *plain_wait);
}

Codes codes(const std::map<std::string, int8_t>& named, const std::vector<std::pair<at::ScalarType, int8_t>>& dtypes) {
  Codes all{named.at("host"),    named.at("wait"), named.at("enqueue_only"), named.at("other_dtype"),
            named.at("barrier"), named.at("send"), named.at("recv"),         named.at("all_reduce"), {}};
  all.dtypes.fill(all.other_dtype);
  for (const auto& [type, code] : dtypes) all.dtypes.at(static_cast<size_t>(type)) = code;
  return all;
}

}  // namespace
}  // namespace commlens

PYBIND11_MODULE(commlens_native, module) {
  using namespace commlens;
  module.attr("ROW_BYTES") = sizeof(Row);
  py::class_<Log, std::unique_ptr<Log, py::nodelete>>(module, "Log")  // hooks may outlive Python's last reference
      .def(py::init([](uint32_t capacity, int64_t linger_ns, int64_t forget_ns,
                       const std::map<std::string, int8_t>& named,
                       const std::vector<std::pair<at::ScalarType, int8_t>>& dtypes, const py::function& resolve) {
        auto* kept = new py::object(resolve);
        return new Log(capacity, linger_ns, forget_ns, codes(named, dtypes),
                       [kept](c10d::ProcessGroup* group) { return resolved(*kept, group); });
      }))
      .def("set_open", [](Log& log, bool open) { log.is_open = open; })
      .def("set_step", [](Log& log, int32_t step) { log.step = step; })
      .def("set_backward", [](Log& log, int64_t number) { log.backward = number; })
      .def("set_layouts", [](Log& log, const std::string& group, const std::vector<std::vector<int64_t>>& layouts) {
        log.groups.set_layouts(group, layouts);
      })
      .def("forget_group", [](Log& log, uintptr_t address) { log.groups.forget(reinterpret_cast<void*>(address)); })
      .def("thread", &Log::thread)
      .def("drain", [](Log& log, int64_t now_ns) {
        std::string rows;
        {
          py::gil_scoped_release unlocked;
          rows = log.slots.drain(now_ns);
        }
        return py::bytes(rows);
      })
      .def("take_hook_ns", [](Log& log) { return log.hook_ns.exchange(0); })
      .def("take_issued", [](Log& log) { return log.slots.take_issued(); })
      .def("take_dropped", [](Log& log) { return log.slots.take_dropped(); })
      .def("dropped", [](Log& log) { return log.slots.dropped(); })
      .def("used", [](Log& log) { return log.slots.used(); })
      .def("pending", [](Log& log) { return log.pending.load(); })
      .def("failure", &Log::failure)
      .def("span_cost_ns", &span_cost_ns);
  module.def("record_into", [](Log* log) { current = log; }, py::arg("log").none(true));
  module.def("install", &install);
  module.def("uninstall", &uninstall);
}

"""When gradients became ready: which steps are read, what the probes see, and that nothing of them stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from commlens.profiler import gradient_probes, gradients
from commlens.profiler.gradient_probes import NodeProbe, ReducerProbe, probe_of
from commlens.profiler.gradients import CALL_NS, NONE_READY, NOT_YET, OK, Gradients


class Clock:
    """Ten nanoseconds later at each reading."""

    def __init__(self) -> None:
        self.time = 0

    def __call__(self) -> int:
        self.time += 10
        return self.time


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gradient_probes, "now", clock)
    monkeypatch.setattr(gradients, "cpu_now", int)
    return clock


@pytest.fixture
def book() -> Iterator[Gradients]:
    changes: list[str] = []
    book = Gradients(lambda: changes.append(book.state))
    yield book
    assert len(changes) == len(set(changes))  # no state is told twice


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))


def backward(book: Gradients, step: int, model: nn.Module) -> None:
    loss = model(torch.ones(2, 4)).sum()
    book.before_backward(step)
    loss.backward()
    book.after_backward()


def seen(book: Gradients) -> list[tuple[int, int, list[int], list[int]]]:
    return [(each.model, each.step, each.places.tolist(), each.ready_ns.tolist()) for each in book.finished]


def test_steps_are_read_at_doubling_distance_ten_times_at_most(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    for step in range(5000):
        book.before_backward(step)
        assert bool(book._probes) == (step in {4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048})
        book.after_backward()
        assert not book._probes


def test_each_parameter_has_its_time_in_the_order_of_backward(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    backward(book, 3, model)
    assert (seen(book), book.state) == ([], NOT_YET)
    backward(book, 4, model)
    ((number, step, places, ready_ns),) = seen(book)
    assert (number, step, places[0], sorted(places), ready_ns) == (0, 4, 2, [0, 1, 2], [10, 20, 30])
    assert (book.state, book.hook_ns) == (OK, 3 * CALL_NS)


def test_every_backward_of_a_sampled_step_is_read(book: Gradients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "MAX_BACKWARDS", 3)
    model = chain()
    book.watch([model])
    for step in (4, 4, 4, 4, 5, 8):
        backward(book, step, model)
    assert [step for _, step, *_ in seen(book)] == [4, 4, 4, 8]


def test_frozen_tied_and_unused_parameters(book: Gradients) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    model[0].requires_grad_(False)
    model[3].weight = model[1].weight
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    book.watch([model])
    backward(book, 4, model)
    names = [name for name, _ in model.named_parameters()]
    ((_, _, places, _),) = seen(book)
    assert [names[place] for place in places] == ["2.weight", "1.weight"]


def test_models_are_told_apart_and_one_that_is_gone_is_left_out(book: Gradients) -> None:
    first, second, third = chain(), chain(), chain()
    book.watch([first, second, third])
    del first
    gc.collect()
    backward(book, 4, third)
    assert [(number, sorted(places)) for number, _, places, _ in seen(book)] == [(2, [0, 1, 2])]


def test_nothing_stays_in_the_model_or_its_graph(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    loss = model(torch.ones(2, 4)).sum()
    book.before_backward(4)
    loss.backward(retain_graph=True)
    book.after_backward()
    loss.backward()
    assert [ready for *_, ready in seen(book)] == [[10, 20, 30]]
    assert all(each._backward_hooks is None for each in model.parameters())
    assert all(each._post_accumulate_grad_hooks is None for each in model.parameters())


def test_gradients_are_the_same_bit_by_bit(book: Gradients) -> None:
    plain, probed = chain(), chain()
    plain(torch.ones(2, 4)).sum().backward()
    book.watch([probed])
    backward(book, 4, probed)
    pairs = zip(plain.parameters(), probed.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)
    assert all(each.grad is not None for each in probed.parameters())


def test_a_backward_inside_another_does_not_end_it(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    loss = model(torch.ones(2, 4)).sum()
    book.before_backward(4)
    book.before_backward(4)
    book.after_backward()
    loss.backward()
    book.after_backward()
    assert [len(places) for _, _, places, _ in seen(book)] == [3]


def test_a_backward_without_gradients_says_so(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    book.before_backward(4)
    book.after_backward()
    assert (seen(book), book.state) == ([], NONE_READY)
    backward(book, 8, model)
    book.before_backward(16)
    book.after_backward()
    assert book.state == OK


def test_a_failure_ends_the_reading_and_nothing_else(book: Gradients, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chain()
    book.watch([model])
    monkeypatch.setattr(NodeProbe, "seen", None)
    backward(book, 4, model)
    assert book.state.startswith("failed (TypeError: ")
    monkeypatch.undo()
    backward(book, 8, model)
    assert not book.finished and not book._probes


def test_letting_go_takes_the_hooks_out_in_the_middle_of_a_backward(book: Gradients) -> None:
    model = chain()
    book.watch([model])
    loss = model(torch.ones(2, 4)).sum()
    book.before_backward(4)
    probe: Any = book._probes[0]
    book.let_go()
    loss.backward()
    book.after_backward()
    assert probe.calls() == 0 and not book.finished


def test_compiled_backward_is_left_alone(book: Gradients, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "is_compiled", lambda: True)
    model = chain()
    book.watch([model])
    backward(book, 4, model)
    assert not book.finished and book.state.startswith("backward is compiled")


class FSDPModule(nn.Sequential):
    """Named like the class that marks FSDP2."""


class Sharded(nn.Parameter):
    """A parameter of another class, as DTensors are."""


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (FSDPModule(nn.Linear(2, 2)), "FSDP2"),
        (nn.ParameterList([nn.Parameter(torch.ones(2)), Sharded(torch.ones(2))]), "DTensor"),
    ],
)
def test_sharded_parameters_are_left_alone_with_a_reason(book: Gradients, model: nn.Module, what: str) -> None:
    assert what in str(probe_of(model))
    book.watch([model])
    book.before_backward(4)
    assert what in book.state and not book._probes
    book.after_backward()
    book.before_backward(8)
    assert not book._probes


NOTES = [[900, 100, 500], [950, 130, 560]]


def reducer_probe(notes: list[list[int]]) -> tuple[ReducerProbe, list[nn.Parameter]]:
    parameters = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    told = iter(notes)
    return ReducerProbe([4, 2, 7], parameters, lambda: next(told)), parameters


def test_ddps_notes_are_tied_to_the_clock_at_the_parameter_that_was_ready_last(clock: Clock) -> None:
    probe, parameters = reducer_probe(NOTES)
    clock.time = 10_000
    probe.insert()
    sum(parameters).backward()  # type: ignore[attr-defined]
    probe.remove()
    places, ready_ns = probe.seen()
    assert places.tolist() == [4, 2, 7]
    assert ready_ns.tolist() == [10_010, 10_010 - 820, 10_010 - 390]
    assert probe.calls() == 1
    assert [bool(each._post_accumulate_grad_hooks) for each in parameters] == [False] * 3


def test_a_backward_that_ddp_did_not_note_tells_nothing() -> None:
    probe, parameters = reducer_probe([NOTES[0], NOTES[0]])
    probe.insert()
    sum(parameters).backward()  # type: ignore[attr-defined]
    assert probe.seen()[0].size == 0 and probe.calls() == 1


def test_where_the_last_parameter_had_no_gradient_nothing_is_told() -> None:
    probe, parameters = reducer_probe(NOTES)
    probe.insert()
    parameters[1].sum().backward()
    assert probe.seen()[0].size == 0 and probe.calls() == 0

"""Changes of DDP's flags beside the sizes of its buckets."""

from __future__ import annotations

from dataclasses import replace

from commlens.analyzers.numerals import counted
from commlens.analyzers.whatif.ddp_changes import gradients_of
from commlens.analyzers.whatif.edited import parts, without
from commlens.analyzers.whatif.model import Altered, Model
from commlens.analyzers.whatif.nodes import BUFFERS

_SEARCH = "searching the graph for unused parameters is taken to cost nothing"
_COPIES = (
    "what the copies between gradients and buckets cost was not measured"
    " (about two reads and two writes of all gradients a step)"
)


def find_unused_parameters(model: Model, value: bool) -> Altered:
    """Off, buckets are laid out anew in the order in which gradients come, and no map of what was used is reduced."""
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    trainable = sum(parameter.trainable for parameter in gradients.parameters)
    if not value and not gradients.settings.static_graph and len(gradients.order) < trainable:
        unused = trainable - len(gradients.order)
        them = "it" if unused == 1 else "them"
        return f"{counted(unused, 'parameter')} had no gradient: without the search DDP would wait for {them} and fail"
    if value == gradients.settings.find_unused_parameters:
        return model
    settings = replace(gradients.settings, find_unused_parameters=value)
    return (
        replace(model, gradients=replace(gradients, settings=settings)).touching("transfer", "wait").assuming(_SEARCH)
    )


def static_graph(model: Model, value: bool) -> Altered:
    """On, buckets are laid out anew and no map of what was used is reduced, also where unused ones are searched."""
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    if value == gradients.settings.static_graph:
        return model
    settings = replace(gradients.settings, static_graph=value)
    changed = replace(model, gradients=replace(gradients, settings=settings)).touching("transfer", "wait")
    return changed.assuming(_SEARCH) if gradients.settings.find_unused_parameters else changed


def broadcast_buffers(model: Model, value: bool) -> Altered:
    """Off, no broadcasts before each forward."""
    sent = parts(model, BUFFERS)
    if value:
        return model if sent else "what sending the buffers costs is told only by a run that does"
    return without(model, sent).touching("transfer", "wait") if sent else model


def gradient_as_bucket_view(model: Model, value: bool) -> Altered:
    """On, gradients need not be copied to buckets and back; compute times do not tell what that takes."""
    gradients = gradients_of(model)
    if isinstance(gradients, str):
        return gradients
    return model if value == gradients.view else _COPIES

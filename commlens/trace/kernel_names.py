"""What the name of a GPU kernel means: the one table.

A kernel that a collective library launched is communication; one that only looks like it is unclassified, so that
nobody takes it for compute. Names come demangled (with return type, template arguments and parameters), mangled
(Itanium) or bare. Only the function and its namespaces count: a communicator in a template argument or in a
parameter makes no kernel communicate.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from commlens.trace.schema import COMMUNICATION, COMPUTE, COPY, UNCLASSIFIED


class KernelName(NamedTuple):
    """What a name says.

    Attributes:
        kind: one of `schema.KERNEL_KINDS`.
        op: one of `schema.OPS`, None where the name does not tell.
    """

    kind: str
    op: str | None


NAMED: Final = "named"  # the operation is the one that the function's name mentions; None if it mentions two
DEEP_EP: Final = r"(?:deep_ep|dpsk::ep)::(?:\w+::)*"

# (pattern, kind, operation). A pattern begins where a part of the name begins: at its start, after `::` or a space.
# Of the lines that match the first part of the name that any matches, the first counts.
TABLE: Final[tuple[tuple[str, str, str | None], ...]] = (
    # CUDA's copies, Nsight's names of them, ROCm's (the runtime may copy with a kernel)
    (r"Mem(?:cpy|set)|\[CUDA mem(?:cpy|set)|hipMem(?:cpy|set)", COPY, None),
    (r"Copy(?:Host|Device)To(?:Host|Device)|FillBuffer|__amd_rocclr_(?:copy|fill)Buffer", COPY, None),
    # libraries that compute; Inductor names a kernel after all operators it fuses, functional collectives too
    (r"(?:at::native|cub|thrust|cutlass\w*)::|triton_(?:poi|red|per|tem|mm|for)_", COMPUTE, None),
    # NCCL and RCCL. Generic and SendRecv run anything, and with NCCL_ALLGATHERV_ENABLE AllGatherV is a broadcast too
    (r"nccl\w*Kernel\w*_(?:Generic|SendRecv|AllGatherV)|ncclSendRecv\w*Kernel|ncclMultiOpKernel", COMMUNICATION, None),
    (r"nccl\w*Kernel", COMMUNICATION, NAMED),
    (r"oneRankReduce|rccl\w*Kernel|mscclKernel_", COMMUNICATION, None),
    (r"nccl_ep_jit_\w*(?:dispatch|combine)_kernel|hybrid_ep::(?:dispatch|combine)_kernel", COMMUNICATION, "all_to_all"),
    (r"hybrid_ep::device_sync_kernel", COMMUNICATION, "barrier"),
    (r"ubx_kernel_", COMMUNICATION, NAMED),
    # MSCCL++
    (r"mscclpp::", COMMUNICATION, NAMED),
    (r"allreduce_\d?shotLL_\dnode", COMMUNICATION, "all_reduce"),
    # NVSHMEM and rocSHMEM. Their reduce leaves the result on every member; fcollect gathers
    (r"(?:rdxn_on_stream_kernel|nvshmemi_reduce_kernel)", COMMUNICATION, "all_reduce"),
    (r"fcollect_on_stream_kernel", COMMUNICATION, "all_gather"),
    (r"(?:barrier|sync)_on_stream_kernel", COMMUNICATION, "barrier"),
    (r"(?:alltoall|broadcast|reducescatter)_on_stream_kernel", COMMUNICATION, NAMED),
    (r"(?:nv|roc)shmem_extension::\w*(?i:all_?to_?all)|allToAll(?:V|Get)", COMMUNICATION, "all_to_all"),
    (r"exchangeSplitAndOffset|(?:nv|roc|mori_)shmem", COMMUNICATION, None),
    # torch's symmetric memory: the first two are also its all_reduce and its reduce_scatter
    (r"multimem_one_shot_reduce_kernel|two_shot_all_reduce_kernel$", COMMUNICATION, None),
    (r"(?:put|wait)_signal_kernel|mark_tile_signals_kernel", COMMUNICATION, None),
    (r"barrier_kernel$", COMMUNICATION, "barrier"),
    (r"(?:tile_reduce_scatter|reduce_scatter_offset(?:_rocm)?)_kernel", COMMUNICATION, "reduce_scatter"),
    # all-reduces of torch, vLLM, SGLang, TensorRT-LLM, FlashInfer, AITER, FBGEMM: one name in many namespaces
    (r"\w*(?i:(?:one|two)_?shot_?all_?reduce)|multimem_all_(?:reduce|gather)_kernel", COMMUNICATION, NAMED),
    (r"\w*one_shot_\w*all_reduce_norm_kernel|hybridCubeMeshAllReduceKernel", COMMUNICATION, "all_reduce"),
    (r"cross_device_reduce_[12]|\w*allreduce_fusion_kernel", COMMUNICATION, "all_reduce"),
    (r"minimax_reduce_rms_kernel_lamport|ar_\w*gfx1250", COMMUNICATION, "all_reduce"),
    (r"(?:cross_device|mnnvl_lamport)_(?:all_gather|reduce_scatter)", COMMUNICATION, NAMED),
    (r"(?:trtllm_mnnvl_allreduce|mnnvl)::rmsNormLamport", COMMUNICATION, None),  # the second half of a two-shot one
    (r"(?:allreduce|allreduce_rmsnorm)_prototype_(?:one|two)shot", COMMUNICATION, "all_reduce"),
    (r"trtllm_\w*allreduce\w*::(?:\w+::)*(?:rms_|lamport_initialize)", COMPUTE, None),
    (r"mixed_comm::(?:all|reduce|fused)\w+_kernel", COMMUNICATION, NAMED),
    (r"pcie_ipc::", COMMUNICATION, "all_reduce"),
    (r"aiter::(?:allgather_(?:lastdim|naive|vec)|reduce_scatter_split)", COMMUNICATION, NAMED),
    (r"aiter::(?:reduce_scatter_cross_device_store|ag_gfx1250|rs_gfx1250)", COMMUNICATION, None),
    (r"fbgemm_gpu::reduce_scatter$", COMMUNICATION, "reduce_scatter"),
    # exchanges of mixtures of experts and of sequence parallelism
    (DEEP_EP + r"(?:get_dispatch_layout|\w*mask_buffer|\w*epilogue_impl)", COMPUTE, None),
    (DEEP_EP + r"(?:hybrid_)?(?:dispatch|combine)(?:_impl|_opt\w*)?$", COMMUNICATION, "all_to_all"),
    (DEEP_EP + r"barrier(?:_impl)?$", COMMUNICATION, "barrier"),
    (DEEP_EP + r"pp_send_impl", COMMUNICATION, "send"),
    (DEEP_EP + r"pp_recv_impl", COMMUNICATION, "recv"),
    (DEEP_EP, COMMUNICATION, None),
    (r"computeSendRecv|inplaceSendRecvRankCumSum", COMPUTE, None),
    (r"moeA(?:llToAll|2ADispatch|2ACombine)Kernel|ulysses_a2a_kernel", COMMUNICATION, "all_to_all"),
    (r"allToAllMetadataDevice|EpCombineSync", COMMUNICATION, None),
    (r"Ep(?:Dispatch|Combine)(?:I\w*NodeV?\w*Kernel|LowLatencyAsync)", COMMUNICATION, "all_to_all"),
    (r"(?:OneShot|InterNodeRing)(?:AllGather|All2all|AllReduce)\w*Kernel", COMMUNICATION, NAMED),
    (r"flux::\w*(?:all2all|a2a_)", COMMUNICATION, "all_to_all"),
    (r"CudaIpcBarrierAll", COMMUNICATION, "barrier"),
    # Transformer Engine's userbuffers
    (r"userbuffers_\w*_rs(?:_|$)", COMMUNICATION, "reduce_scatter"),
    (r"userbuffers_\w*_ag(?:_|$)", COMMUNICATION, "all_gather"),
    (r"userbuffers_fp16_sum_inplace_gpu_(?:rw|rr|mc)$", COMMUNICATION, "all_reduce"),
    (r"k?userbuffers_", COMMUNICATION, None),
)

# Words of communication: a function, or a namespace of it, with one of them that no line above knows is unclassified.
LOOKS_LIKE: Final = (
    r"(?i:nccl|rccl|msccl|nvshmem|rocshmem|deep_?ep|reduce_?scatter|send_?recv|multimem|cross_device_|userbuffers)"
    r"|(?:(?<![A-Za-z])all|All|ALL)_?(?i:reduce|gather|to_?all|2_?all)"
)

# How names spell operations.
SPELLINGS: Final = (
    (r"all_?reduce", "all_reduce"),
    (r"all_?gather", "all_gather"),
    (r"reduce_?scatter", "reduce_scatter"),
    (r"all_?(?:to|2)_?all|(?<![a-z])a2a", "all_to_all"),
    (r"broadcast", "broadcast"),
    (r"(?<!all)(?<!all_)reduce(?!_?scatter)", "reduce"),
    (r"barrier", "barrier"),
)

# All lines in one expression; each has its own group, and no other group captures.
_TABLE: Final = re.compile(rf"(?:^|[\s:])(?:{'|'.join(f'({pattern})' for pattern, _, _ in TABLE)})")
_LOOKS_LIKE: Final = re.compile(LOOKS_LIKE)
_SPELLINGS: Final = tuple((re.compile(pattern, re.IGNORECASE), op) for pattern, op in SPELLINGS)
_ANONYMOUS: Final = re.compile(r"(?:\(anonymous namespace\)|<unnamed>)::")
_END: Final = re.compile(r"[<(]|\.kd\b")
_MANGLED: Final = re.compile(r"_Z(?:N[rVK]*)?")
_IDENTIFIER: Final = re.compile(r"(?:L|St)?([0-9]{1,5})")


@lru_cache(maxsize=8192)
def classify(name: str) -> KernelName:
    """What the kernel `name` does and, where it is a collective's, which operation; never raises."""
    function = _function(name)
    known = _TABLE.search(function)
    if known is None or known.lastindex is None:
        return KernelName(UNCLASSIFIED if _LOOKS_LIKE.search(function) else COMPUTE, None)
    _, kind, op = TABLE[known.lastindex - 1]
    return KernelName(kind, _named(function) if op == NAMED else op)


def _function(name: str) -> str:
    """The function with its namespaces and return type, without template arguments and parameters."""
    if mangled := _MANGLED.match(name):
        return _demangled(name, mangled.end())
    name = _ANONYMOUS.sub("", name)
    if name.startswith("std::enable_if"):
        name = name.partition("::type ")[2]  # the function behind its return type
    return _END.split(name, 1)[0]


def _demangled(name: str, at: int) -> str:
    """The identifiers of a mangled name from position `at` on, up to its template arguments or parameters."""
    parts = []
    while (length := _IDENTIFIER.match(name, at)) and int(length[1]) > 0:
        at = length.end() + int(length[1])
        parts.append(name[length.end() : at])
    return "::".join(part for part in parts if not part.startswith("_GLOBAL__N"))


def _named(function: str) -> str | None:
    last = function.rpartition("::")[2]
    found = [op for pattern, op in _SPELLINGS if pattern.search(last)]
    return found[0] if len(found) == 1 else None

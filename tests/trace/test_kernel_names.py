"""Names of GPU kernels: as they stand in the libraries' sources and in profiles of real jobs."""

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commlens.trace.kernel_names import NAMED, SPELLINGS, TABLE, KernelName, classify
from commlens.trace.schema import COMMUNICATION, COMPUTE, COPY, KERNEL_KINDS, OPS, UNCLASSIFIED

REAL = Path(__file__).parents[2].parent / "shared" / "traces"

OPERATIONS = [
    # NCCL: 2.3 to 2.8, to 2.18, from 2.19, from 2.27 on symmetric memory
    ("ncclAllReduceRingLLKernel_sum_f32(ncclColl)", "all_reduce"),
    ("ncclReduceScatterRingLLKernel_sum_f16(ncclColl)", "reduce_scatter"),
    ("ncclBroadcastRingLLKernel_copy_i8(ncclColl)", "broadcast"),
    ("ncclReduceRingLLKernel_sum_f32(ncclColl)", "reduce"),
    ("ncclSendRecvKernel_copy_i8(ncclColl)", None),
    ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)", "all_reduce"),
    ("ncclKernel_AllReduce_TREE_LL_Sum___nv_bfloat16(ncclDevComm*, unsigned long, ncclWork*)", "all_reduce"),
    ("ncclKernel_Reduce_RING_LL_Max_double(ncclDevComm*, unsigned long, ncclWork*)", "reduce"),
    ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)", None),
    ("ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevComm*, unsigned long, ncclWork*)", "all_reduce"),
    ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "all_gather"),
    ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", "reduce_scatter"),
    ("ncclDevKernel_Broadcast_RING_LL(ncclDevKernelArgsStorage<(unsigned long)4096>)", "broadcast"),
    ("ncclDevKernel_Reduce_Sum_u8_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "reduce"),
    ("ncclDevKernel_AllGatherV_RING_LL(ncclDevKernelArgsStorage<4096ul>)", None),
    ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", None),
    ("ncclDevKernel_Generic(ncclDevKernelArgsStorage<4096ul>)", None),
    ("ncclSymkDevKernel_AllReduce_RSxLDMC_AGxSTMC_sum_bf16(ncclSymkDevWorkArgs4K)", "all_reduce"),
    ("ncclSymkDevKernel_ReduceScatter_RailA2A_LsaLD_sum_f32(ncclSymkDevWorkArgs4K)", "reduce_scatter"),
    ("ncclSymDevKernel_AllGather_STMC(ncclSymDevArgs)", "all_gather"),
    ("void (anonymous namespace)::oneRankReduce<FuncPreMulSum<float> >(void*, void*, unsigned long)", None),
    ("nccl_ep_jit_ht_dispatch_kernel", "all_to_all"),
    ("void ubx_kernel_allreduce_2shot_mc_lamport<8>(int)", "all_reduce"),
    ("void ubx_kernel_a2av_wait(int, ncclWindow_t)", "all_to_all"),
    # RCCL, MSCCL, MSCCL++
    ("ncclDevKernel_Generic_1(ncclDevKernelArgsStorage<4096ul>) [clone .kd]", None),
    ("ncclDevKernelDebug_Generic(ncclDevComm*, channelMasks, ncclWork*)", None),
    ("void rcclGenericKernel<1, false>(ncclDevKernelArgsStorage<4096ul>)", None),
    ("mscclKernel_Sum_half_LL_false.kd", None),
    ("void mscclpp::executionKernel<__half, mscclpp::LL16Packet>(int, __half*, mscclpp::DeviceExecutionPlan*)", None),
    ("void mscclpp::collective::allreduceAllPairs<(mscclpp::ReduceOp)0, __half>(__half*, __half*)", "all_reduce"),
    ("mscclpp::collective::allgatherFullmesh2(void*, mscclpp::DeviceHandle<mscclpp::MemoryChannel>*)", "all_gather"),
    ("void sglang::allreduce_1shotLL_2node<__half>(mscclpp::MemoryChannelDeviceHandle*)", "all_reduce"),
    # NVSHMEM, and torch on it
    ("void barrier_on_stream_kernel_threadgroup<(threadgroup_t)2>(int, int)", "barrier"),
    ("void rdxn_on_stream_kernel<float, (rdxn_ops)4>(int, float*, float const*, unsigned long, int)", "all_reduce"),
    ("void fcollect_on_stream_kernel<char>(int, char*, char const*, unsigned long, int)", "all_gather"),
    ("void alltoall_on_stream_kernel<char>(int, char*, char const*, unsigned long, int)", "all_to_all"),
    ("void broadcast_on_stream_kernel<char>(int, char*, char const*, unsigned long, int, int)", "broadcast"),
    ("void reducescatter_on_stream_kernel<float, (rdxn_ops)4>(int, float*)", "reduce_scatter"),
    ("nvshmemi_signal_wait_until_on_stream_kernel(unsigned long volatile*, int, unsigned long)", None),
    ("nvshmem_put_kernel", None),
    ("c10d::nvshmem_extension::exchangeSplitAndOffset(long*, int, int)", None),
    ("c10d::nvshmem_extension::allToAllV(void*, void*, long*, unsigned long, int, int)", "all_to_all"),
    # torch's symmetric memory
    ("void (anonymous namespace)::multimem_all_reduce_kernel<c10::BFloat16, 16>(c10::BFloat16*)", "all_reduce"),
    ("void <unnamed>::multimem_all_gather_kernel<16>(char*, char*, unsigned long)", "all_gather"),
    ("void (anonymous namespace)::multimem_one_shot_reduce_kernel<float, 16>(float*, float*)", None),
    ("void (anonymous namespace)::one_shot_all_reduce_kernel<c10::BFloat16, 16, 8>(c10::BFloat16**)", "all_reduce"),
    ("void (anonymous namespace)::two_shot_all_reduce_kernel<float, 16, 8, true, false>(float**)", None),
    ("void (anonymous namespace)::two_shot_all_reduce_kernel_inplace<float, 16, 8>(float**)", "all_reduce"),
    ("c10d::symmetric_memory::barrier_kernel(unsigned int**, int, int, int, unsigned long)", "barrier"),
    ("c10d::symmetric_memory::wait_signal_kernel(unsigned int**, int, int, int, int, unsigned long)", None),
    ("void c10d::nccl_extension::reduce_scatter_offset_kernel<float, true>(ncclWindow_vidmem*)", "reduce_scatter"),
    ("void c10d::intra_node_comm::oneShotAllReduceKernel<8u, false>(at::BFloat16*)", "all_reduce"),
    ("void c10d::intra_node_comm::hybridCubeMeshAllReduceKernel<false>(at::BFloat16*)", "all_reduce"),
    # vLLM, SGLang, AITER, TensorRT-LLM, FlashInfer, FBGEMM
    ("void vllm::cross_device_reduce_1stage<__nv_bfloat16, 8>(vllm::RankData*, vllm::RankSignals)", "all_reduce"),
    ("void sglang::cross_device_reduce_2stage<__half, 8>(sglang::RankData*, sglang::RankSignals)", "all_reduce"),
    ("void aiter::cross_device_reduce_2stage_write_mode<__hip_bfloat16, 8>(aiter::RankData*)", "all_reduce"),
    ("void aiter::allreduce_fusion_kernel_1stage<std::bfloat16_t, std::bfloat16_t, 4, true>()", "all_reduce"),
    ("void aiter::allgather_vec<std::bfloat16_t, 8>(aiter::RankData*)", "all_gather"),
    ("void aiter::reduce_scatter_cross_device_store<std::bfloat16_t, 8>(aiter::RankData*)", None),
    ("void vllm::cross_device_reduce_scatter<__half, 8>(vllm::RankData*)", "reduce_scatter"),
    ("void vllm::mnnvl_lamport_all_gather<__half, 8>(vllm::RankData*)", "all_gather"),
    ("void tensorrt_llm::kernels::oneShotAllReduceKernel<__half, 8, true, true>(AllReduceParams)", "all_reduce"),
    ("void tensorrt_llm::kernels::lowPrecisionTwoShotAllReduceKernel<float>(float*)", "all_reduce"),
    ("void tensorrt_llm::kernels::mnnvl::twoshot_allreduce_kernel<8, __half>(__half*)", "all_reduce"),
    (
        "void tensorrt_llm::kernels::reduce_fusion::lamport_style_one_shot_all_reduce_norm_kernel<__half, 8>(P)",
        "all_reduce",
    ),
    ("void flashinfer::trtllm_mnnvl_allreduce::oneshotAllreduceFusionKernel<8u, __half>(__half*)", "all_reduce"),
    ("void flashinfer::trtllm_mnnvl_allreduce::twoshotAllreduceKernel<8u, __half>(__half*)", "all_reduce"),
    ("void flashinfer::trtllm_mnnvl_allreduce::rmsNormLamport<8, __half>(__half*)", None),
    ("void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<1>(P)", "all_reduce"),
    ("void flashinfer::x::moefinalize_allreduce_fusion_kernel_oneshot_lamport<1>(P)", "all_reduce"),
    ("void flashinfer::comm::mixed_comm::fused_reducescatter_allreduce_kernel<1>(P)", None),
    ("void flashinfer::comm::mixed_comm::reducescatter_kernel<1>(P)", "reduce_scatter"),
    ("void quickreduce::allreduce_prototype_twoshot<quickreduce::AllReduceTwoshot<__half>, __half>()", "all_reduce"),
    ("void vllm::tensorrt_llm::minimax_reduce_rms_kernel_lamport<__half, 8>(P)", "all_reduce"),
    ("void fbgemm_gpu::two_shot_all_reduce_pipelined<8>(int)", "all_reduce"),
    ("void fbgemm_gpu::reduce_scatter<8, false>(int)", "reduce_scatter"),
    # mixtures of experts, sequence parallelism
    ("void deep_ep::internode_ll::dispatch<(bool)1, (bool)1, (int)6144>(void *, void *, int *)", "all_to_all"),
    ("void deep_ep::internode::combine<true, __nv_bfloat16, 16>(int4*, float*)", "all_to_all"),
    ("void deep_ep::internode::notify_dispatch<false, 2>(int const*, int*, int)", None),
    ("void deep_ep::intranode::cached_notify_combine<8>(void**, int*)", None),
    ("void deep_ep::intranode::barrier<8>(int**, int)", "barrier"),
    ("void dpsk::ep::internode::dispatch<false, 2, false>(int4*)", "all_to_all"),
    ("void deep_ep::elastic::hybrid_dispatch_impl<1, 2>(void*)", "all_to_all"),
    ("void deep_ep::elastic::pp_send_impl<1>(ncclDevComm)", "send"),
    ("void deep_ep::elastic::pp_recv_impl<1>(ncclDevComm)", "recv"),
    ("void hybrid_ep::combine_kernel<1>(hybrid_ep::combine_kernel_param_t)", "all_to_all"),
    ("void hybrid_ep::device_sync_kernel(unsigned int*)", "barrier"),
    ("void tensorrt_llm::kernels::moeA2ADispatchKernel<P, 8>(int const*)", "all_to_all"),
    ("void flashinfer::trtllm_alltoall::moeAllToAllKernel<false>(MoeEpWorldInfo)", "all_to_all"),
    ("EpDispatchInterNodeV1KernelLowLatency_bf16", "all_to_all"),
    ("void flashinfer::comm::ulysses::ulysses_a2a_kernel<8>(P)", "all_to_all"),
    # Transformer Engine's userbuffers
    ("void userbuffers_fp16_sum_inplace_gpu_rr_rs_oop<4>(int, int, int)", "reduce_scatter"),
    ("void userbuffers_fp16_sum_inplace_gpu_mc_rs<8>(int, int, int)", "reduce_scatter"),
    ("void userbuffers_fp16_sum_inplace_gpu_mc_ag<8>(int, int, int)", "all_gather"),
    ("void userbuffers_fp16_sum_inplace_gpu_rw<8>(int, int, int)", "all_reduce"),
    ("kuserbuffers_pushsendrecv_multiatomic(int*, int*, int4*)", None),
    # mangled
    ("_Z39ncclDevKernel_AllReduce_Sum_f32_RING_LLP11ncclDevCommmP8ncclWork", "all_reduce"),
    ("_ZN4vllm26cross_device_reduce_1stageI13__nv_bfloat16Li8EEEvPNS_8RankDataE", "all_reduce"),
    ("_ZN12_GLOBAL__N_126multimem_all_reduce_kernelIN3c108BFloat16ELi16EEEvPT_mPPjmm", "all_reduce"),
    ("_ZN7deep_ep12internode_ll8dispatchILb1ELb1ELi6144EEEvPvS2_Pi", "all_to_all"),
    ("_ZN4c10d16symmetric_memoryL18wait_signal_kernelEPPjiiiim", None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "op"), OPERATIONS)
def test_communication(name: str, op: str | None) -> None:
    assert classify(name) == KernelName(COMMUNICATION, op)


@pytest.mark.parametrize(
    "name",
    [
        "Memcpy HtoD (Pageable -> Device)",
        "Memcpy PtoP (Device -> Device)",
        "Memset (Device)",
        "[CUDA memcpy Host-to-Device]",
        "[CUDA memset]",
        "CopyHostToDevice",
        "CopyDeviceToDevice",
        "FillBuffer",
        "__amd_rocclr_copyBuffer.kd",
        "__amd_rocclr_fillBufferAligned",
    ],
)
def test_copies(name: str) -> None:
    assert classify(name) == KernelName(COPY, None)


@pytest.mark.parametrize(
    "name",
    [
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::func_wrapper_t<float>>>(R)",
        "void at::native::_scatter_gather_elementwise_kernel<128, 4, at::native::F>(int)",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<float, unsigned int, 2, 128, 1>(float*)",
        "_ZN2at6native13reduce_kernelILi512ELi1ENS0_8ReduceOpIfEEEEvT1_",
        "void cub::CUB_200200_800_NS::DeviceReduceSingleTileKernel<cub::Policy600>(int*)",
        "void thrust::cuda_cub::core::_kernel_agent<thrust::__reduce::ReduceAgent>(int*)",
        "triton_poi_fused_all_reduce_0",
        "triton_poi_fused__to_copy_all_gather_into_tensor_wait_tensor_3",
        "triton_red_fused_reduce_scatter_tensor_sum_1",
        "void permute_pooled_embs_kernel<float>(float const*, long const*)",
        "void recat_copy_async_kernel<float>(long const*, long const*, float const*)",
        "void smallGatherKernel<float>(float*)",
        "void c10d::checkForNaN<float>(float*, unsigned long)",
        "void pack<ncclDevKernelArgsStorage<4096ul> >(ncclDevKernelArgsStorage<4096ul>)",
        "void deep_ep::layout::get_dispatch_layout<256, 32, 8>(long const*, int*)",
        "void deep_ep::elastic::combine_reduce_epilogue_impl<1>(__nv_bfloat16*)",
        "void flashinfer::trtllm_allreduce::rms_norm_kernel<__half, true>(P)",
        "flashinfer::trtllm_alltoall::computeSendRecvRankCountKernel(MoeEpWorldInfo)",
        "std::enable_if<(((8)>(0)))&&vllm::_typeConvert<c10::BFloat16>::exists, void>::type "
        "vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*)",
        "ampere_sgemm_128x64_nn",
        "",
        "_Z",
        "_ZN99short",
    ],
)
def test_compute(name: str) -> None:
    assert classify(name) == KernelName(COMPUTE, None)


@pytest.mark.parametrize(
    "name",
    [
        "void mylib::fancy_allreduce<float>(float*)",
        "my_AllGather_kernel",
        "_ZN5mylib15ring_all_to_allEv",
        "mylib::reduceScatterStep(float*)",
        "nccl_gin_progress",
        "void mylib::sendrecv<1>(int)",
        "std::enable_if<(1)>(0), void>::type mylib::ring_all_reduce<float>(float*)",
    ],
)
def test_what_looks_like_communication_and_is_in_no_line(name: str) -> None:
    assert classify(name) == KernelName(UNCLASSIFIED, None)


def test_an_enabled_if_function_is_found_behind_its_return_type() -> None:
    name = "std::enable_if<std::is_same<float, float>::value, void>::type vllm::cross_device_reduce_1stage<float, 8>(A)"
    assert classify(name) == KernelName(COMMUNICATION, "all_reduce")


@pytest.mark.parametrize("line", TABLE)
def test_the_table_speaks_the_schema(line: tuple[str, str, str | None]) -> None:
    pattern, kind, op = line
    assert kind in KERNEL_KINDS and kind != UNCLASSIFIED
    assert op in (*OPS, NAMED, None)
    assert op is None or kind == COMMUNICATION
    assert re.compile(pattern).groups == 0  # lines are told apart by their group


def test_every_spelling_is_an_operation() -> None:
    assert {op for _, op in SPELLINGS} < set(OPS)


@given(st.text(max_size=60) | st.text(alphabet="_ZNL019<>()[]: nclKerAlRduc", max_size=60))
def test_any_text_has_a_kind(text: str) -> None:
    kind, op = classify(text)
    assert kind in KERNEL_KINDS
    assert op is None or (op in OPS and kind == COMMUNICATION)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real traces are not beside the repository")
def test_names_in_real_profiles() -> None:
    """Every distinct name: by category copies are copies; what is not compute is this list."""
    found = {(category, name): classify(name) for category, name in _real_names()}
    assert len(found) == 468
    copies = {key for key, (kind, _) in found.items() if kind == COPY}
    assert copies == {key for key in found if key[0] != "kernel"}
    communication = {
        name.partition("<")[0].partition("(nccl")[0]: op
        for (_, name), (kind, op) in found.items()
        if kind == COMMUNICATION
    }
    assert communication == {
        "ncclKernel_AllReduce_RING_LL_Sum_float": "all_reduce",
        "ncclKernel_Broadcast_RING_LL_Sum_int8_t": "broadcast",
        "ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t": None,
        "ncclDevKernel_AllReduce_Sum_f16_RING_LL": "all_reduce",
        "ncclDevKernel_AllReduce_Sum_f32_RING_LL": "all_reduce",
        "ncclDevKernel_AllGather_RING_LL": "all_gather",
        "ncclDevKernel_SendRecv": None,
        "void (anonymous namespace)::multimem_all_reduce_kernel": "all_reduce",
    }  # fmt: skip
    assert not [name for (_, name), (kind, _) in found.items() if kind == UNCLASSIFIED]


def _real_names() -> set[tuple[str, str]]:
    names: set[tuple[str, str]] = set()
    for path in REAL.glob("*/*.json.gz"):
        events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
        kinds = ("kernel", "gpu_memcpy", "gpu_memset")
        names |= {(event["cat"].lower(), event["name"]) for event in events if event.get("cat", "").lower() in kinds}
    return names

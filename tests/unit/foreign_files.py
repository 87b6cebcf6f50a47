"""Small files in the formats of other tools, as these write them."""

from __future__ import annotations

AITER_TUNED = """\
gfx,cu_num,M,N,K,bias,dtype,outdtype,scaleAB,bpreshuffle,libtype,solidx,splitK,us,kernelName,err_ratio,tflops,bw
gfx950,256,1,8192,4096,False,torch.bfloat16,torch.bfloat16,False,False,asm,5,13,7.9191,some_kernel,0.0,21.19,417.9
gfx942,304,1,8192,4096,FALSE,torch.bfloat16,torch.bfloat16,FALSE,FALSE,hipblaslt,5,0,9.2,other,0.0,21.19,417.92
gfx950,256,64,256,5120,True,torch.float16,torch.float16,False,False,triton,0,0,nan,auto,0.0,21.19,417.92
gfx950,256,64,256,5120,False,torch.bfloat16,torch.bfloat16,False,True,asm,5,13,7.9191,shuffled,0.0,21.19,417.92
gfx950,256,64,256,5120,False,torch.bfloat16,torch.bfloat16,True,False,asm,5,13,7.9191,scaled,0.0,21.19,417.92
"""
AITER_OLD = "M,N,K,bias,dtype,outdtype,scaleAB,cu_num,libtype,solidx,splitK,us,kernelName,err_ratio,tflops,bw\n" + (
    "64,256,5120,False,torch.bfloat16,torch.bfloat16,False,80,asm,1,10,8.3,some_kernel,0.0,20.21,402.69\n"
)
TUNABLE = """\
Validator,PT_VERSION,2.5.0
Validator,GCN_ARCH_NAME,gfx942:sramecc+:xnack-
GemmTunableOp_BFloat16_TN,tn_8192_2_3584,Gemm_Hipblaslt_TN_572,0.0240676
GemmTunableOp_BFloat16_TN,tn_8192_1_4096_ld_4096_4096_8192,Gemm_Rocblas_621284994,0.0196817
GemmAndBiasTunableOp_Half_TN,tn_1280_2_8192_ld_8192_8192_1280,Default,0.0191047
GemmStridedBatchedTunableOp_Half_TN,tn_19_19_64_B_96_ld_192_192_19,Gemm_Hipblaslt_1,0.01
ScaledGemmTunableOp_Float8_e4m3fn_Float8_e4m3fn_BFloat16_TN,tn_512_256_4096_ld_4096_4096_512_rw_1_bias_None,x,0.2
GemmTunableOp_double_TN,tn_10_20_30_ld_30_30_10,Default,0.1
GemmTunableOp_BFloat16_TN,tn_16_8_64_ld_64_64_16,Gemm_Hipblaslt_3,0.1,BLAS_PARAMS: - { function: matmul, M: 16 }
"""
LOG = """\
loading the model
hipblaslt-bench --api_method c -m 16032 -n 109 -k 16384 --lda 16384 --ldb 16384 --ldc 16032 --ldd 16032  --stride_a 0 \
--alpha 1.000000 --beta 0.000000 --transA T --transB N --batch_count 1 --scaleA 0 --scaleB 0 --bias_vector \
--bias_source d --a_type bf16_r --b_type bf16_r --c_type bf16_r --d_type bf16_r --scale_type f32_r --bias_type bf16_r \
--compute_type f32_r --algo_method index --solution_index 218160 --activation_type none
50 ./rocblas-bench -f gemm_ex --transposeA T --transposeB N -m 1024 -n 512 -k 1024 --alpha 1 --a_type f16_r --lda 1024 \
--b_type f16_r --ldb 1024 --beta 0 --c_type f16_r --ldc 1024 --d_type f16_r --ldd 1024 --compute_type f32_r --algo 0
./rocblas-bench -f gemm_ex --transposeA T --transposeB N -m 1024 -n 512 -k 1024 --a_type f16_r
./rocblas-bench -f axpy -n 1024
- {function: matmul, M: 16032, N: 113, K: 16384, alpha: 1.0, beta: 0.0, transA: T, transB: N, batch_count: 1, \
scaleA: 0, scaleAlpha_vector: false, gradient: false, use_e: false, bias_vector: false, a_type: bf16_r, \
b_type: bf16_r, c_type: bf16_r, d_type: bf16_r, bias_type: f32_r, activation_type: none, call_count: 7}
- { rocblas_function: "rocblas_gemm_ex", a_type: "bf16_r", b_type: "bf16_r", c_type: "bf16_r", d_type: "bf16_r", \
compute_type: "f32_r", transA: 'T', transB: 'N', M: 12288, N: 4547, K: 4608, alpha: 1.0, beta: 0.0, call_count: 136 }
- { rocblas_function: "rocblas_hgemm_strided_batched", transA: 'T', transB: 'N', M: 8, N: 8, K: 8, call_count: 3 }
"""
BENCH_OUTPUT = """\
Is supported 1 / Total solutions: 1
[0]:transA,transB,grouped_gemm,batch_count,m,n,k,alpha,beta,a_type,b_type,c_type,d_type,compute_type,scaleA,\
scaleB,activation_type,bias_vector,bias_type,hipblaslt-Gflops,hipblaslt-GB/s,us
    T,N,0,1,4096,16,4096,1,0,bf16_r,bf16_r,bf16_r,bf16_r,f32_r,0,0,none,0,f32_r,31234,400,17.2
"""
YAML = """\
# problem sizes
- rocblas_function: rocblas_gemm_ex
  transA: T
  transB: N
  a_type: bf16_r
  M: 4096
  N: 16
  K: 1024
- rocblas_function: rocblas_dgemm
  M: 4096
  N: 16
  K: 1024
"""
TRACE = b"""{"schemaVersion": 1, "traceEvents": [
{"ph": "X", "cat": "cpu_op", "name": "aten::linear", "pid": 1, "tid": 2, "ts": 100.5, "dur": 50.25, "args": {
 "Input type": ["c10::BFloat16", "c10::BFloat16", "c10::BFloat16"], "Input Strides": [[320, 64, 1], [64, 1], [1]],
 "Input Dims": [[2, 5, 64], [32, 64], [32]]}},
{"ph": "X", "cat": "cpu_op", "name": "aten::addmm", "pid": 1, "tid": 2, "ts": 110.5, "dur": 30.5, "args": {
 "Concrete Inputs": ["", "", "", "1", "1"], "Input type": ["c10::BFloat16", "c10::BFloat16", "c10::BFloat16"],
 "Input Strides": [[1], [64, 1], [1, 64], [], []], "Input Dims": [[32], [10, 64], [64, 32], [], []]}},
{"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 1, "args": {"name": "python"}}
]}"""

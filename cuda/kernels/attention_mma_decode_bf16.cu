//! registers 255
// Decoding on bf16, by tensor cores.
#include "attention_mma_decode.cuh"

ATTENTION_MMA_DECODE(bf16, attention::Bfloat, 32)
ATTENTION_MMA_DECODE(bf16, attention::Bfloat, 64)
ATTENTION_MMA_DECODE(bf16, attention::Bfloat, 96)
ATTENTION_MMA_DECODE(bf16, attention::Bfloat, 128)
ATTENTION_MMA_DECODE(bf16, attention::Bfloat, 256)
ATTENTION_MERGE(bf16, attention::Bfloat)

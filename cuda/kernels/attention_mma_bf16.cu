//! registers 255
// Attention on bf16, by tensor cores.
#include "attention_mma.cuh"

ATTENTION_MMA(bf16, attention::Bfloat, 32)
ATTENTION_MMA(bf16, attention::Bfloat, 64)
ATTENTION_MMA(bf16, attention::Bfloat, 96)
ATTENTION_MMA(bf16, attention::Bfloat, 128)
ATTENTION_MMA(bf16, attention::Bfloat, 256)

//! registers 255
// The backward pass of attention on bf16, by tensor cores.
#include "attention_mma_backward.cuh"

ATTENTION_MMA_BACKWARD(bf16, attention::Bfloat, 32)
ATTENTION_MMA_BACKWARD(bf16, attention::Bfloat, 64)
ATTENTION_MMA_BACKWARD(bf16, attention::Bfloat, 96)
ATTENTION_MMA_BACKWARD(bf16, attention::Bfloat, 128)
ATTENTION_MMA_BACKWARD(bf16, attention::Bfloat, 256)

//! registers 255
// The backward pass of attention on f16, by tensor cores.
#include "attention_mma_backward.cuh"

ATTENTION_MMA_BACKWARD(f16, attention::Half, 32)
ATTENTION_MMA_BACKWARD(f16, attention::Half, 64)
ATTENTION_MMA_BACKWARD(f16, attention::Half, 96)
ATTENTION_MMA_BACKWARD(f16, attention::Half, 128)
ATTENTION_MMA_BACKWARD(f16, attention::Half, 256)

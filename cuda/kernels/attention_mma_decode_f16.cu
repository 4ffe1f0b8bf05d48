//! registers 255
// Decoding on f16, by tensor cores.
#include "attention_mma_decode.cuh"

ATTENTION_MMA_DECODE(f16, attention::Half, 32)
ATTENTION_MMA_DECODE(f16, attention::Half, 64)
ATTENTION_MMA_DECODE(f16, attention::Half, 96)
ATTENTION_MMA_DECODE(f16, attention::Half, 128)
ATTENTION_MMA_DECODE(f16, attention::Half, 256)
ATTENTION_MERGE(f16, attention::Half)

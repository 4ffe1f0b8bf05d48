//! registers 255
// Attention on f16, by tensor cores.
#include "attention_mma.cuh"

ATTENTION_MMA(f16, attention::Half, 32)
ATTENTION_MMA(f16, attention::Half, 64)
ATTENTION_MMA(f16, attention::Half, 96)
ATTENTION_MMA(f16, attention::Half, 128)
ATTENTION_MMA(f16, attention::Half, 256)

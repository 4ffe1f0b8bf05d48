//! registers 168
// Attention on f16, by multiply-adds.
#include "attention_simt.cuh"

ATTENTION_SIMT(f16, attention::Half)

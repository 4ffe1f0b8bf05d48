//! registers 168
// Attention on f32, by multiply-adds.
#include "attention_simt.cuh"

ATTENTION_SIMT(f32, float)

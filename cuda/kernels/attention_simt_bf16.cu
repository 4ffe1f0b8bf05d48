//! registers 168
// Attention on bf16, by multiply-adds.
#include "attention_simt.cuh"

ATTENTION_SIMT(bf16, attention::Bfloat)

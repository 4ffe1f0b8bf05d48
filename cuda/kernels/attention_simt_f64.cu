//! registers 168
// Attention on f64, by multiply-adds.
#include "attention_simt.cuh"

ATTENTION_SIMT(f64, double)

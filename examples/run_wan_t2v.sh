#!/usr/bin/env bash
# Wan2.1 text to video.
#
#   MODEL_PATH=models/Wan2.1-T2V-1.3B examples/run_wan_t2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan/wan_t2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.1-T2V-1.3B}" \
    --prompt "Two anthropomorphic cats in comfortable boxing gear fight on a spotlit stage." \
    --output wan_t2v.mp4 \
    "$@"

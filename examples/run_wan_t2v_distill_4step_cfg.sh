#!/usr/bin/env bash
# Wan2.1 text to video 14B, distilled to four steps.
#
#   MODEL_PATH=models/wan2.1_t2v_14b examples/run_wan_t2v_distill_4step_cfg.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/distill/wan_t2v_distill_4step_cfg.json}" \
    --model-path "${MODEL_PATH:-models/wan2.1_t2v_14b}" \
    --prompt "Two anthropomorphic cats in comfortable boxing gear fight on a spotlit stage." \
    --output wan_t2v_distill.mp4 \
    "$@"

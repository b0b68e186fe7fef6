#!/usr/bin/env bash
# Wan2.2 image to video by two experts, distilled to four steps.
#
#   MODEL_PATH=models/wan2.2_models IMAGE=fox.png examples/run_wan22_moe_i2v_distill.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan22/wan_moe_i2v_distill.json}" \
    --model-path "${MODEL_PATH:-models/wan2.2_models}" \
    --image "${IMAGE:-fox.png}" \
    --prompt "A red fox runs through fresh snow, the camera follows." \
    --output wan22_moe_i2v_distill.mp4 \
    "$@"

#!/usr/bin/env bash
# Wan2.1 image to video.
#
#   MODEL_PATH=models/Wan2.1-I2V-14B-720P IMAGE=fox.png examples/run_wan_i2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan/wan_i2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.1-I2V-14B-720P}" \
    --image "${IMAGE:-fox.png}" \
    --prompt "A red fox runs through fresh snow, the camera follows." \
    --output wan_i2v.mp4 \
    "$@"

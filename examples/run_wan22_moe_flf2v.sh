#!/usr/bin/env bash
# Wan2.2 from a first image to a last one by two experts.
#
#   MODEL_PATH=models/Wan2.2-I2V-A14B IMAGE=fox.png LAST_IMAGE=last.png \
#       examples/run_wan22_moe_flf2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan22/wan_moe_flf2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.2-I2V-A14B}" \
    --image "${IMAGE:-fox.png}" \
    --last-image "${LAST_IMAGE:-last.png}" \
    --prompt "A red fox runs through fresh snow, the camera follows." \
    --output wan22_moe_flf2v.mp4 \
    "$@"

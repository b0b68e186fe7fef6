#!/usr/bin/env bash
# Wan2.1 from a first image to a last one.
#
#   MODEL_PATH=models/Wan2.1-FLF2V-14B-720P IMAGE=fox.png LAST_IMAGE=last.png \
#       examples/run_wan_flf2v.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan/wan_flf2v.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.1-FLF2V-14B-720P}" \
    --image "${IMAGE:-fox.png}" \
    --last-image "${LAST_IMAGE:-last.png}" \
    --prompt "A red fox runs through fresh snow, the camera follows." \
    --output wan_flf2v.mp4 \
    "$@"

#!/usr/bin/env bash
# Wan2.1 VACE: regenerates a video where its mask is white.
#
#   MODEL_PATH=models/Wan2.1-VACE-1.3B SRC_VIDEO=video.mp4 SRC_MASK=mask.mp4 \
#       examples/run_wan_vace.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan/wan_vace.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.1-VACE-1.3B}" \
    --src-video "${SRC_VIDEO:-video.mp4}" \
    --src-mask "${SRC_MASK:-mask.mp4}" \
    --prompt "A red fox runs through fresh snow, the camera follows." \
    --output wan_vace.mp4 \
    "$@"

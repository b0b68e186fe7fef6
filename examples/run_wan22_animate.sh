#!/usr/bin/env bash
# Wan2.2 Animate: the person in an image moves like the one in a video.
#
#   MODEL_PATH=models/Wan2.2-Animate-14B POSE_VIDEO=pose.mp4 FACE_VIDEO=face.mp4 REF_IMAGE=person.png \
#       examples/run_wan22_animate.sh [options]
#
# Options of `lightx2v-core run` override the configuration: --prompt TEXT, --size 1280x720, --seed 7, --dry-run.
set -euo pipefail
configs=$(cd "$(dirname "${BASH_SOURCE[0]}")/../configs" && pwd)

lightx2v-core run "${CONFIG:-$configs/wan22/wan_animate.json}" \
    --model-path "${MODEL_PATH:-models/Wan2.2-Animate-14B}" \
    --pose-video "${POSE_VIDEO:-pose.mp4}" \
    --face-video "${FACE_VIDEO:-face.mp4}" \
    --ref-image "${REF_IMAGE:-person.png}" \
    --prompt "A person is dancing." \
    --output wan22_animate.mp4 \
    "$@"

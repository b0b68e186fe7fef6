"""The official negative prompts of the Wan models, copied from their configuration files."""

#: Wan2.1 and Wan2.2, all tasks without a specific prefix
NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
#: image-to-video: additionally no camera shake
NEGATIVE_I2V = "镜头晃动，" + NEGATIVE
#: first and last frame to video: additionally neither cuts nor camera shake
NEGATIVE_FLF2V = "镜头切换，" + NEGATIVE_I2V

"""What names of files and folders claim: the names of real files, and ordinary words that look alike."""

from __future__ import annotations

import time

import pytest

from lightx2v_core.spec.file_names import named_expert, sampling_steps, says_distilled

HIGH = [
    "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step",
    "Wan2_2-T2V-A14B_HIGH_bf16",
    "Wan2_2-I2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ",
    "Wan2.2-I2V-A14B-HighNoise-Q4_K_M",
    "wan2.2_t2v_high_noise_14B_fp8_scaled",
    "Wan2.2-Lightning_T2V-v1.1-A14B-4steps-lora_HIGH_fp16",
    "wan22_t2vHigh",
    "smoothMix_t2vHighV20",
    "wan22high_fp8",
    "WAN22-HN-fox",
    "fox_hn_v1",
    "HighNoise",
    "high_noise_model",
    "high-noise-model",
    "highnoise",
    "HIGH",
    "high",
    "Wan22-HighNoise-fox",
    "instagirl_v2.0_hinoise",
    "fox-high-v2",
    "fox_high_lora_rank_64",
    "Instara_high_4000",
    "fox_high-000120",
    "low_light_style_HIGH",
    "low_light_high_noise",
    "high_heels_high_noise",
]


@pytest.mark.parametrize("name", HIGH)
def test_names_of_real_files_name_an_expert(name: str) -> None:
    swapped = name.replace("low", "+").replace("high", "low").replace("High", "Low").replace("HIGH", "LOW")
    swapped = (
        swapped.replace("HN", "LN").replace("hn", "ln").replace("hinoise", "lonoise").replace("+", "high")
    )
    assert named_expert(name) == "high_noise"
    assert named_expert(swapped) == "low_noise"
    assert named_expert(name, ("coarse", "fine")) is None


@pytest.mark.parametrize(
    "name",
    [
        "low_light_style", "low_angle_shot", "high_heels", "HighHeels_v2", "highres", "high_res_v2", "high_quality",
        "Wan2.2_lowpoly", "fox_low_rank", "fox_high_rank_64", "fox_low_rank64", "low_step_4", "low_vram", "high_fps_16",
        "LOW_LIGHT",
        "slow_flow_highway", "high_fox", "low_fox_style", "thigh", "below", "fellow", "glow", "follow_v2", "Highlander",
        "high_and_low", "high_low", "HighLow_v2", "high_and_low_noise", "high_noise_low_noise", "high_noise_LOW",
        "wan2.2_a14b_bf16", "hn_fox", "ln_norm", "fox", "",
    ],
)  # fmt: skip
def test_ordinary_words_name_no_expert(name: str) -> None:
    assert named_expert(name) is None


def test_one_of_a_pair_that_lies_side_by_side_names_an_expert() -> None:
    pair = ["fox_HIGH_style", "fox_low_style", "owl"]
    assert [named_expert(name, beside=pair) for name in pair] == ["high_noise", "low_noise", None]
    assert named_expert("high_fox", beside=["low_fox"]) == "high_noise"
    assert named_expert("high_fox", beside=["high_fox", "low_owl", "fox"]) is None
    # ordinary expressions stay as they are
    assert named_expert("low_light", beside=["high_light", "low_light"]) is None


def test_other_models_have_other_experts() -> None:
    experts = ("coarse_stage", "fine_stage")
    assert named_expert("acme_coarse_stage_v2", experts) == "coarse_stage"
    assert named_expert("acme-FINE", experts) == "fine_stage"
    assert named_expert("fine_art", experts) is None
    assert named_expert("acme_high_noise", experts) is None


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022.safetensors", 4),
        ("wan2.1_i2v_720p_lightx2v_4step.safetensors", 4), ("Wan2.2-T2V-A14B-4steps-lora-rank64-Seko-V1.1", 4),
        ("fox-4-step.safetensors", 4), ("fox_8_steps", 8), ("Fox4Step", 4), ("T2V4StepsLora", 4), ("4stepv2", 4),
        ("mini-4step", 4), ("8-steps_480p", 8), ("fox 2 step", 2), ("rank_64_4_steps", 4), ("wan2.2.4step", None),
        ("style_v2-step00003000", None), ("style-step-3000", None), ("style_v2_step_3000", None), ("v2-step-500", None),
        ("2_step_500", None), ("2-steps-3000.safetensors", None), ("fox-step4", None), ("1000-steps", None),
        ("model_14steps", None), ("step5000", None), ("epoch4_step500", None), ("fox-e4-steps-1200", None),
        ("wan2_1_step_distill", None), ("Wan2.1_step_distill", None), ("v4step", None), ("2stepper", None),
        ("fox_4_stepladder", None), ("doorstep", None), ("checkpoint-3-step-12000", None),
    ],
)  # fmt: skip
def test_a_number_of_sampling_steps_stands_before_its_word(name: str, steps: int | None) -> None:
    assert sampling_steps(name) == steps


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32", True), ("Wan2.1-T2V-14B-StepDistill-CfgDistill", True),
        ("distill_models", True), ("fox_distilled_v2", True), ("distillv2", True), ("step-distillation", True),
        ("fox-4step", True), ("distillery_style", False), ("undistilled", False),
        ("de-distill", False), ("dedistilled_v2", False), ("nude-distill", True), ("non-distilled", False),
        ("not_distilled", False), ("no_distill", False), ("style_v2-step00003000", False), ("piano-distill", True),
        ("lightx2v", False),
    ],
)  # fmt: skip
def test_names_say_that_a_network_is_distilled(name: str, stated: bool) -> None:
    assert says_distilled(name) is stated


def test_hostile_names_take_no_time() -> None:
    began = time.perf_counter()
    for word in ("f1234567", "high", "hn", "e4", "1", "4", "s1"):
        for name in (f"high {f'{word} ' * (480 // (len(word) + 1))} x", f"high {f'{word} ' * 100_000} x"):
            assert named_expert(name, beside=[name]) is None or word == "hn"
            assert not says_distilled(f"{name} steps3")
    assert time.perf_counter() - began < 10

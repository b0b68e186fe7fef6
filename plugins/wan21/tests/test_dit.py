"""The transformer against reference outputs of the official code."""

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from lightx2v_wan21.architecture import DitArchitecture, dit_from, dit_tensors
from lightx2v_wan21.dit import WanDiT, timestep_features
from lightx2v_wan21.rope import apply_rope, rope_table

TOLERANCE = {"atol": 2e-4, "rtol": 1e-3}
TINY = DitArchitecture(dim=24, ffn_dim=32, num_heads=2, num_layers=1, in_dim=4, out_dim=4, text_dim=8)


def load_case(folder, *, load_checkpoint, read_json, attention, dtype=torch.float32, part="."):
    checkpoint = folder / "ckpt" / part
    tensors = load_checkpoint(checkpoint)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    arch = dit_from(read_json(checkpoint / "config.json"), shapes)
    assert dit_tensors(arch) == shapes
    model = WanDiT(arch, attention=attention, dtype=dtype)
    model.load_state_dict(tensors)
    return model, load_file(folder / "inputs.safetensors"), load_file(folder / "outputs.safetensors")


def randomized(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def predict(model, inputs, run, **more):
    latents, timesteps = inputs[f"{run}.x"], inputs[f"{run}.t"]
    contexts = [inputs[f"{run}.context.{i}"] for i in range(len(latents))]
    padded = torch.stack([F.pad(c, (0, 0, 0, model.arch.text_len - len(c))) for c in contexts])
    if f"{run}.y" in inputs:
        latents = torch.cat((latents, inputs[f"{run}.y"]), dim=1)
    conditions = {"image_MSD": inputs.get(f"{run}.clip_fea"), "vace_BCTHW": inputs.get(f"{run}.vace_context")}
    rope = model.rope(latents.shape[1:], "cpu")
    return model(latents, timesteps, padded, rope, **conditions, **more)


@pytest.mark.parametrize(
    ("case", "runs"),
    [
        ("dit_wan21_t2v", ("single", "batch2")),
        ("dit_wan21_t2v_hd128_sharded_bf16", ("single",)),
        ("dit_wan21_t2v_textdim4096", ("single",)),
        ("dit_wan21_i2v", ("single", "batch2")),
        ("dit_wan21_flf2v", ("single", "batch2")),
        ("dit_wan21_vace", ("single",)),
        ("dit_wan22_ti2v_5b", ("single", "per_token", "per_token_batch2")),
    ],
)
def test_output_equals_official(case, runs, golden, load_checkpoint, read_json, sdpa):
    model, inputs, outputs = load_case(
        golden(case), load_checkpoint=load_checkpoint, read_json=read_json, attention=sdpa
    )
    for run in runs:
        out = predict(model, inputs, run)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, outputs[f"{run}.out"], **TOLERANCE)


@pytest.mark.parametrize("expert", ["high_noise_model", "low_noise_model"])
@pytest.mark.parametrize("case", ["dit_wan22_t2v_a14b", "dit_wan22_i2v_a14b"])
def test_experts_equal_official(case, expert, golden, load_checkpoint, read_json, sdpa):
    model, inputs, outputs = load_case(
        golden(case), load_checkpoint=load_checkpoint, read_json=read_json, attention=sdpa, part=expert
    )
    names = [name for name in outputs if name.endswith(f".{expert}.out")]
    assert names
    for name in names:
        out = predict(model, inputs, name.split(".")[0])
        torch.testing.assert_close(out, outputs[name], **TOLERANCE)


def test_vace_scale(golden, load_checkpoint, read_json, sdpa):
    model, inputs, outputs = load_case(
        golden("dit_wan21_vace"), load_checkpoint=load_checkpoint, read_json=read_json, attention=sdpa
    )
    assert model.arch.vace_layers == (0, 2)
    out = predict(model, inputs, "scaled", vace_scale=0.6)
    torch.testing.assert_close(out, outputs["scaled.out"], **TOLERANCE)


def test_intermediates_equal_official(golden, load_checkpoint, read_json, sdpa):
    model, inputs, outputs = load_case(
        golden("dit_wan21_t2v"), load_checkpoint=load_checkpoint, read_json=read_json, attention=sdpa
    )
    seen = {}
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *args, index=index: seen.update({f"block_{index}": args[-1]}))
    model.time_embedding.register_forward_hook(lambda *args: seen.update(time_embedding=args[-1]))
    model.text_embedding.register_forward_hook(lambda *args: seen.update(text_embedding=args[-1]))
    predict(model, inputs, "single")
    assert len(seen) == 5
    for name, value in seen.items():
        expected = outputs[f"single.dbg.{name}"]  # of the text embedding only the first rows are kept
        torch.testing.assert_close(value[:, : expected.shape[1]], expected, **TOLERANCE)


def test_bfloat16_keeps_sensitive_parts_in_float32(golden, load_checkpoint, read_json, sdpa):
    def half_attention(q, k, v):
        assert q.dtype == k.dtype == v.dtype == torch.bfloat16
        return sdpa(q, k, v)

    model, inputs, outputs = load_case(
        golden("dit_wan21_t2v"),
        load_checkpoint=load_checkpoint,
        read_json=read_json,
        attention=half_attention,
        dtype=torch.bfloat16,
    )
    half = {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}
    assert all(name.split(".")[-2] in {*"qkvo", "0", "2", "patch_embedding"} for name in half)
    assert not any("norm" in name or name.startswith(("time", "head")) for name in half)
    out, expected = predict(model, inputs, "batch2"), outputs["batch2.out"]
    assert out.dtype == torch.float32
    assert (out - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("case", ["dit_wan21_i2v", "dit_wan21_flf2v", "dit_wan21_vace", "dit_wan22_ti2v_5b"])
def test_bfloat16_is_close_with_every_branch(case, golden, load_checkpoint, read_json, sdpa):
    model, inputs, outputs = load_case(
        golden(case),
        load_checkpoint=load_checkpoint,
        read_json=read_json,
        attention=sdpa,
        dtype=torch.bfloat16,
    )
    sensitive = ("norm", "time_", "head.", "modulation", "emb_pos", "img_emb.proj.0.", "img_emb.proj.4.")
    for name, parameter in model.named_parameters():
        assert (parameter.dtype == torch.float32) == any(part in name for part in sensitive), name
    run = "per_token" if "ti2v" in case else "single"
    out, expected = predict(model, inputs, run), outputs[f"{run}.out"]
    assert out.dtype == torch.float32
    assert (out - expected).norm() < 0.03 * expected.norm()


def test_one_timestep_for_all_tokens_is_a_scalar_one(sdpa):
    model = randomized(WanDiT(TINY, attention=sdpa, dtype=torch.float32))
    latents, context = torch.randn(2, 4, 2, 4, 6), torch.randn(2, 5, 8)
    rope = model.rope(latents.shape[1:], "cpu")
    timesteps = torch.tensor([700, 30])
    per_token = timesteps[:, None].expand(2, 12)
    torch.testing.assert_close(
        model(latents, per_token, context, rope), model(latents, timesteps, context, rope)
    )


@pytest.mark.parametrize(
    ("size", "what"), [({"image_dim": 6}, "image features"), ({"vace_layers": (0,)}, "a VACE condition")]
)
def test_a_missing_condition_is_named(size, what, sdpa):
    model = WanDiT(attrs.evolve(TINY, **size), attention=sdpa, dtype=torch.float32)
    latents = torch.zeros(1, 4, 1, 2, 2)
    with pytest.raises(ValueError, match=f"this network needs {what}"):
        model(latents, torch.tensor([1]), torch.zeros(1, 5, 8), model.rope(latents.shape[1:], "cpu"))


def test_attention_module_is_not_part_of_the_state(sdpa):
    class Backend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scratch = torch.nn.Parameter(torch.zeros(1))

        def forward(self, q, k, v):
            return sdpa(q, k, v)

    with torch.device("meta"):
        model = WanDiT(TINY, attention=Backend(), dtype=torch.float32)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == dit_tensors(TINY)
    assert all(parameter.is_meta for parameter in model.parameters())


def test_block_compiles_without_graph_break(sdpa):
    model = randomized(WanDiT(TINY, attention=sdpa, dtype=torch.bfloat16))
    args = (torch.randn(1, 12, 24), torch.randn(1, 6, 24), torch.randn(1, 5, 24).bfloat16())
    rope = model.rope((4, 3, 4, 4), "cpu")
    block = torch.compile(model.blocks[0], backend="eager", fullgraph=True)
    torch.testing.assert_close(block(*args, rope), model.blocks[0](*args, rope))


@pytest.mark.parametrize("size", [(3, 5, 4), (3, 4, 7)])
def test_indivisible_latents_are_refused(size, sdpa):
    model = WanDiT(TINY, attention=sdpa, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"not divisible by patch size \(1, 2, 2\)"):
        model.rope((4, *size), "cpu")


@pytest.mark.parametrize("head_dim", [12, 32, 128])
def test_rope_equals_complex_rotation(head_dim):
    grid = (2, 3, 4)
    x = torch.randn(1, 24, 2, head_dim, dtype=torch.float64)
    spatial = head_dim // 2 // 3
    turns = []
    for axis, pairs in enumerate((head_dim // 2 - 2 * spatial, spatial, spatial)):
        position = torch.cartesian_prod(*(torch.arange(n) for n in grid))[:, axis].double()
        turns.append(torch.outer(position, 10000.0 ** -(torch.arange(pairs).double() / pairs)))
    angles = torch.cat(turns, dim=1)[:, None]
    expected = torch.view_as_real(
        torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)
    ).flatten(-2)
    out = apply_rope(x.float(), rope_table(grid, head_dim, "cpu"))
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=1e-5)


def test_timestep_features_start_with_cosines():
    features = timestep_features(torch.tensor([0, 937]), 256)
    assert features.dtype == torch.float32
    assert torch.equal(features[0], torch.cat((torch.ones(128), torch.zeros(128))))
    assert features[1, 0] == torch.tensor(937.0).double().cos().float()

"""The generator: it draws the objects of a scene, and the same seed gives the same images."""

from collections import Counter
from itertools import islice, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightx2v_core.testing.profiles import examples
from prompts import plain_prompt, prompt, vocabulary
from world import (
    COLOURS,
    DIRECTIONS,
    MARGIN,
    PALETTE,
    SHAPES,
    Companion,
    Scene,
    held_out,
    render,
    scenes,
)

RED = Scene(
    colour="red",
    shape="circle",
    size="large",
    direction="right",
    speed="fast",
    ground="blue",
    kind="plain",
    start=(0.25, 0.5),
)


def test_same_seed_same_scenes_prompts_and_pixels():
    first, again = list(islice(scenes(3), 20)), list(islice(scenes(3), 20))
    assert first == again
    assert first != list(islice(scenes(4), 20))
    assert [prompt(scene, 1) for scene in first] == [prompt(scene, 1) for scene in again]
    assert torch.equal(render(first[0]), render(again[0]))


@pytest.mark.parametrize(("side", "frames"), [(64, 17), (48, 9), (32, 1)])
def test_clips_have_their_size_and_range(side, frames):
    clip = render(RED, side=side, frames=frames)
    assert clip.shape == (3, frames, side, side)
    assert clip.dtype == torch.float32
    assert clip.min() >= -1
    assert clip.max() <= 1


def test_a_shape_is_where_the_scene_says():
    clip = render(RED, side=64, frames=5) / 2 + 0.5
    red, blue = torch.tensor(PALETTE["red"]), torch.tensor(PALETTE["blue"])
    for frame, column in enumerate((0.25, 0.34, 0.43, 0.52, 0.61)):
        torch.testing.assert_close(clip[:, frame, 32, int(column * 64)], red)
        torch.testing.assert_close(clip[:, frame, 32, int((column - 0.22) * 64)], blue)
        torch.testing.assert_close(clip[:, frame, 3, 32], blue)


def test_edges_are_antialiased():
    clip = render(RED, side=64, frames=1)[0, 0]
    inner = (clip - clip.min()) / (clip.max() - clip.min())
    between = ((inner > 0.05) & (inner < 0.95)).sum()
    assert 20 < between < 100
    torch.testing.assert_close(inner.sum() / 64**2, torch.tensor(3.1416 * 0.185**2), rtol=0.01, atol=0)


@settings(max_examples=examples(40), deadline=None)
@given(seed=st.integers(0, 10**9), two=st.sampled_from([0.0, 1.0]))
def test_no_shape_leaves_the_picture_or_meets_another(seed, two):
    scene = next(scenes(seed, two=two))
    clip = render(scene, side=64, frames=9) / 2 + 0.5
    bare = render(scene, side=64, frames=1)[:, :, :, :1] / 2 + 0.5  # a column that no shape touches
    drawn = ((clip - bare).abs().amax(0) > 0.02).float()
    rim = int(MARGIN * 64) - 1
    inside = drawn[:, rim:-rim, rim:-rim]
    assert drawn.sum() == inside.sum() > 0
    # the same number of pixels in every frame: nothing is covered
    assert (drawn.sum((1, 2)) / drawn[0].sum() - 1).abs().max() < 0.15


def test_held_out_triples_leave_every_pair_to_training():
    triples = list(product(COLOURS, SHAPES, DIRECTIONS))
    out = [triple for triple in triples if held_out(*triple)]
    assert len(out) == len(triples) / 6
    for first, second in ((0, 1), (0, 2), (1, 2)):
        left = {(triple[first], triple[second]) for triple in triples if triple not in out}
        assert left == {(triple[first], triple[second]) for triple in triples}
    for split in ("train", "test"):
        for scene in islice(scenes(0, split=split), 50):
            assert held_out(scene.colour, scene.shape, scene.direction) == (split == "test")


def test_what_cannot_be_seen_is_refused():
    with pytest.raises(ValueError, match="differ in colour"):
        Scene(**{**_fields(RED), "ground": "blue", "colour": "blue"})
    with pytest.raises(ValueError, match="differ in colour"):
        Scene(**{**_fields(RED), "second": Companion(colour="red", shape="square", place=(0.5, 0.8))})
    with pytest.raises(ValueError, match="cannot fade"):
        Scene(**{**_fields(RED), "ground": "black", "kind": "graded"})


def test_prompts_say_what_must_be_said():
    assert plain_prompt(RED) == "a red circle moves to the right on a blue background"
    said = Counter()
    for seed, scene in enumerate(islice(scenes(5), 200)):
        english, chinese = prompt(scene, seed, language="en"), prompt(scene, seed, language="zh")
        assert scene.colour in english
        assert scene.shape in english
        assert f"{scene.ground}" in english
        assert chinese.isascii() is False
        assert "{" not in english + chinese
        assert "  " not in english
        said["zh" if not prompt(scene, seed).isascii() else "en"] += 1
        said["size"] += scene.size in english
    assert 40 < said["zh"] < 95
    assert 85 < said["size"] < 155
    assert {"circle", "向右移动", "background", "moves"} <= set(vocabulary())


def test_the_examples_that_come_with_the_model_are_in_words_that_it_knows():
    plugin = pytest.importorskip("lightx2v_mini.plugin", reason="the trained model comes with lightx2v-mini")
    known = set(vocabulary())
    chinese = sorted((word for word in known if not word.isascii()), key=len, reverse=True)
    for spec in plugin.lightx2v_checkpoints():
        assert len(set(spec.examples)) == len(spec.examples) > 2
        for example in spec.examples:
            if example.isascii():
                assert set(example.split()) <= known, example
                continue
            rest = example
            for word in chinese:
                rest = rest.replace(word, "")
            assert not rest, example


def _fields(scene):
    return {name: getattr(scene, name) for name in Scene.__slots__ if not name.startswith("__")}

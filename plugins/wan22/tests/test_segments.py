"""Conditions of Animate's network for a segment, from the frames of its inputs."""

import pytest
import torch

from lightx2v_wan22.animate.segment import Span, known_channels, mirrored


def encode(video):
    """A stand-in for the VAE: the first channel of the first frame of each latent, at an eighth of the size."""
    return video[:1, ::4, ::8, ::8].expand(16, -1, -1, -1)


def test_a_short_clip_runs_to_and_fro():
    assert [mirrored(i, 4) for i in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [mirrored(i, 2) for i in range(4)] == [0, 1, 0, 1]
    assert [mirrored(i, 1) for i in range(3)] == [0, 0, 0]


def test_the_first_segment_of_an_animation_knows_nothing():
    known = known_channels({}, Span(start=0, frames=9, known=0), None, (16, 24), encode, "cpu")
    assert known.shape == (20, 3, 2, 3)
    assert not known.any()


@pytest.mark.parametrize("overlap", [1, 5])
def test_a_later_segment_knows_where_the_last_one_ended(overlap):
    tail = torch.full((3, overlap, 16, 24), 0.5)
    known = known_channels({}, Span(start=8, frames=9, known=overlap), tail, (16, 24), encode, "cpu")
    # the first frame stands for four
    assert known[:4, :, 0, 0].T.flatten().tolist() == [1] * (3 + overlap) + [0] * (9 - overlap)
    assert known[4, :, 0, 0].tolist() == [0.5] * (1 + overlap // 4) + [0.0] * (2 - overlap // 4)


def test_a_replacement_knows_the_background_where_there_is_no_person():
    background = torch.arange(9.0).view(1, 9, 1, 1).expand(3, 9, 16, 24) / 10
    person = torch.zeros(9, 16, 24)
    person[:, :, 8:16] = 1
    inputs = {"background_video": background, "mask_video": person}
    known = known_channels(inputs, Span(start=0, frames=9, known=0), None, (16, 24), encode, "cpu")
    assert known[:4].unique(dim=0).shape[0] == 1
    assert known[0, 0].tolist() == [[1, 0, 1]] * 2
    torch.testing.assert_close(known[4, :, 0, 0], torch.tensor([0.0, 0.4, 0.8]))
    tail = torch.full((3, 1, 16, 24), -0.5)
    known = known_channels(inputs, Span(start=8, frames=9, known=1), tail, (16, 24), encode, "cpu")
    assert known[:4, 0].eq(1).all()
    assert known[0, 1].tolist() == [[1, 0, 1]] * 2
    # after its end the background runs backwards: frames 8 (here the tail), 7, 6, ...
    torch.testing.assert_close(known[4, :, 0, 0], torch.tensor([-0.5, 0.4, 0.0]))

"""Images resized in integer arithmetic, compared to OpenCV and, pixel by pixel, to the rule.

``data/opencv_bilinear.json`` has rows, columns, rows and columns of the result, and the CRC-32 of its bytes, from
``cv2.resize(picture(...), ..., interpolation=cv2.INTER_LINEAR)`` of OpenCV 4.14; those of OpenCV 5.0 are the same.
"""

import json
import zlib
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from lightx2v_wan22.animate.bilinear import resized_bytes
from lightx2v_wan22.animate.segment import letterboxed

SUMS = json.loads((Path(__file__).parent / "data" / "opencv_bilinear.json").read_text(encoding="utf-8"))


def picture(height, width):
    """Generate pseudo-random bytes from their indices alone."""
    numbers = torch.arange(height * width * 3)
    return ((numbers * 2654435761 % 2**32) >> 13).to(torch.uint8).view(height, width, 3)


def test_pictures_get_the_bytes_of_opencv():
    assert len(SUMS) > 100
    wrong = []
    for height, width, rows, columns, expected in SUMS:
        result = resized_bytes(picture(height, width), rows, columns)
        assert (result.dtype, tuple(result.shape)) == (torch.uint8, (rows, columns, 3))
        if zlib.crc32(result.contiguous().numpy().tobytes()) != expected:
            wrong.append((height, width, rows, columns))
    assert not wrong


@pytest.mark.parametrize("sizes", [(5, 9, 12, 4), (1, 6, 3, 6), (16, 16, 8, 7), (7, 3, 20, 30), (9, 9, 3, 3)])
@pytest.mark.parametrize("extremes", [False, True])
def test_a_result_is_within_one_of_the_exact_mean(sizes, extremes):
    height, width, rows, columns = sizes
    image = picture(height, width)
    if extremes:
        image = (image > 127).to(torch.uint8) * 255
    result = resized_bytes(image, rows, columns)

    def between(place, count, size):
        at = (Fraction(2 * place + 1, 2) * size / count) - Fraction(1, 2)
        low = at.__floor__()
        share = at - low
        return [(min(max(low, 0), size - 1), 1 - share), (min(max(low + 1, 0), size - 1), share)]

    for row in range(rows):
        for column in range(columns):
            exact = sum(
                y_share * x_share * int(image[y, x, 0])
                for y, y_share in between(row, rows, height)
                for x, x_share in between(column, columns, width)
            )
            assert abs(int(result[row, column, 0]) - exact) <= Fraction(5, 4), (row, column)


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_one_colour_stays_what_it_is(value):
    assert resized_bytes(torch.full((37, 53, 3), value, dtype=torch.uint8), 91, 20).unique().tolist() == [
        value
    ]


def test_a_picture_of_that_size_is_left_alone():
    image = picture(12, 20)
    assert torch.equal(resized_bytes(image, 12, 20), image)


@pytest.mark.parametrize("shape", [(20, 20), (16, 8), (4, 40), (16, 24), (1, 400), (400, 1)])
def test_a_reference_is_fitted_on_black(shape):
    fitted = letterboxed(torch.full((*shape, 3), 255, dtype=torch.uint8), 16, 24)
    assert fitted.shape == (16, 24, 3)
    lit = fitted[..., 0] == 255
    rows, columns = lit.any(1).sum(), lit.any(0).sum()
    assert lit.sum() == rows * columns
    assert rows == 16 or columns == 24
    assert not fitted[~lit].any()

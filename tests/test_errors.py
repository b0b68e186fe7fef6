"""What messages are made of."""

from __future__ import annotations

import pytest

from lightx2v_core.errors import shortened


@pytest.mark.parametrize(
    ("items", "most", "text"),
    [
        ([], 8, ""),
        (["a"], 8, "a"),
        (["a", "b", "c"], 3, "a, b, c"),
        (["a", "b", "c"], 2, "a, b and 1 more"),
        ([str(i) for i in range(100_000)], 8, "0, 1, 2, 3, 4, 5, 6, 7 and 99992 more"),
    ],
)
def test_a_list_of_names_ends_with_how_many_more_there_are(items: list[str], most: int, text: str) -> None:
    assert shortened(items, most) == text

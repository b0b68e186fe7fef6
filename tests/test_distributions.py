"""Names, versions and requirements mean what packaging says they mean."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lightx2v_core.discovery.metadata import admits, canonical

_RELEASES = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
_CLAUSES = st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "~="]), _RELEASES).filter(
    lambda clause: clause[0] != "~=" or "." in clause[1]
)


@given(st.lists(_CLAUSES, max_size=3), _RELEASES, st.sampled_from(["", "", "rc1", ".dev0", ".post1"]))
def test_specifiers_mean_what_packaging_says(
    clauses: list[tuple[str, str]], version: str, suffix: str
) -> None:
    specifier = ", ".join("".join(clause) for clause in clauses)
    version += suffix
    assert admits(specifier, version) == SpecifierSet(specifier).contains(version, prereleases=True)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,12}[A-Za-z0-9])?", fullmatch=True))
def test_names_are_compared_as_packaging_does(name: str) -> None:
    assert canonical(name) == canonicalize_name(name)

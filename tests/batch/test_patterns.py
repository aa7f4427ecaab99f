"""What ``--glob`` takes of a folder: names at any depth, or whole paths within it, as Python's glob takes them."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echopix_cli.batch.tasks import find_media
from echopix_cli.errors import UsageError

FILES = ("top.wav", "b", "a/one.wav", "a/b/two.wav", "a/b/b", "a/b/c/three.mp4", "b.d/a/one.wav", "b.d/a.wav")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def taken(tree: Path, pattern: str) -> set[str]:
    try:
        return {os.path.relpath(path, tree) for path in find_media([str(tree)], pattern)}
    except UsageError as error:
        assert error.message == f"no files called {pattern} in {tree}"
        return set()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**/*.wav", {"top.wav", "a/one.wav", "a/b/two.wav", "b.d/a/one.wav", "b.d/a.wav"}),
        ("./*.wav", {"top.wav"}),
        ("a/*", {"a/one.wav"}),
        ("a/**", {"a/one.wav", "a/b/two.wav", "a/b/b", "a/b/c/three.mp4"}),
        ("a/**/*.mp4", {"a/b/c/three.mp4"}),
        ("*/*/*.wav", {"a/b/two.wav", "b.d/a/one.wav"}),
        ("b/**", set()),
        ("a/", set()),
        ("**", set(FILES)),
    ],
)
def test_a_slash_makes_a_pattern_one_of_paths(tree: Path, pattern: str, expected: set[str]) -> None:
    assert taken(tree, pattern) == expected


PARTS = st.sampled_from(["**", "*", "a", "b", "*.wav", "?", "[ab]*", "*.*", "a**", ".", "one.wav"])


@given(st.lists(PARTS, min_size=1, max_size=6))
def test_patterns_mean_what_they_mean_to_python(tree: Path, parts: list[str]) -> None:
    pattern = "/".join(parts)
    paths = pattern if "/" in pattern else f"**/{pattern}"
    found = glob.glob(paths, root_dir=tree, recursive=True)
    assert taken(tree, pattern) == {os.path.normpath(path) for path in found if os.path.isfile(tree / path)}


def test_many_stars_take_no_longer(tree: Path) -> None:
    """Each part is looked at once for each name, where trying all ways would take years."""
    deep = tree / "deep"
    place = deep.joinpath(*["d"] * 40)
    place.mkdir(parents=True)
    (place / "x.wav").touch()
    assert taken(deep, "**/d/" * 20 + "x.wav") == {f"{'d/' * 40}x.wav"}
    assert taken(deep, "**/d/" * 20 + "y.wav") == set()


def test_a_pattern_that_is_empty_is_called_so(tree: Path) -> None:
    with pytest.raises(UsageError, match="the pattern of --glob is empty"):
        find_media([str(tree)], "")

"""The preprocessing against the model family's own numbers."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from places import GOLDEN, SHARED, load_script

SHIPPED = GOLDEN / "preprocess"
REFERENCE = SHARED / "reference" / "preprocess"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script(GOLDEN / "check_preprocess.py")


@pytest.mark.parametrize("folder", [SHIPPED, REFERENCE], ids=["shipped", "reference"])
def test_every_field_matches(check: ModuleType, folder: Path) -> None:
    if not folder.is_dir():
        pytest.skip(f"the reference vectors are not here: {folder}")
    rows = check.check_folder(folder)
    assert {row.file for row in rows} == {path.name for path in folder.iterdir()}
    assert [str(row) for row in rows if not row.matches] == []


def test_resized_frames_are_bit_identical(check: ModuleType) -> None:
    rows = list(check.check_pixels(SHIPPED / "pixels_nasa.safetensors"))
    assert {row.field: row.difference for row in rows}["resized"] == 0


def test_a_mismatch_is_told(check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = json.loads((SHIPPED / "smart_resize.json").read_text())
    cases[0]["resized"][0] += 28
    (tmp_path / "smart_resize.json").write_text(json.dumps(cases))
    assert check.main([str(tmp_path)]) == 1
    assert "resized: largest difference 28: MISMATCH" in capsys.readouterr().out


def test_an_empty_folder_is_no_success(check: ModuleType, tmp_path: Path) -> None:
    assert check.main([str(tmp_path)]) == 1

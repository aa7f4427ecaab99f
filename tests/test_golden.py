"""The port against the authors' own numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from places import GOLDEN, SHARED, load_script
from safetensors.torch import load_file, save_file


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script(GOLDEN / "check.py")


def test_shipped_vectors(check: ModuleType, reference: Path) -> None:
    rows = list(check.check_folder(reference))
    assert len(rows) > 35
    assert [str(row) for row in rows if not row.ok] == []


def test_whole_reference(check: ModuleType) -> None:
    folder = SHARED / "reference"
    if not folder.is_dir():
        pytest.skip("../shared/reference is not on this machine")
    assert [str(row) for row in check.check_folder(folder) if not row.ok] == []


@pytest.mark.parametrize(
    ("name", "field"),
    [
        *(("audio_only", field) for field in ("kept_indices.0", "position_ids", "generated", "logits_last")),
        *(("audio_only", "sieve_scores"), ("av_r20", "loss"), ("av_r20", "grad.model.compressor.score_head.0.weight")),
    ],
)
def test_a_changed_number_fails(check: ModuleType, reference: Path, tmp_path: Path, name: str, field: str) -> None:
    """The check is able to fail: one altered value in one field is found and exits 1."""
    (tmp_path / "checkpoint").symlink_to(reference / "checkpoint")
    case = tmp_path / "cases" / name
    shutil.copytree(reference / "cases" / name, case)
    expected = load_file(case / "expected.safetensors")
    flat = expected[field].flatten()
    if flat.is_floating_point():
        largest = int(flat.abs().argmax())
        flat[largest] += max(3e-4, 0.01 * float(flat[largest].abs()))
    else:
        flat[-1] += 1
    save_file(expected, case / "expected.safetensors")
    failed = [row.field for row in check.check_folder(tmp_path) if not row.ok]
    assert failed == [field]
    assert check.main([str(tmp_path)]) == 1


def test_switches_come_from_the_case(check: ModuleType, reference: Path, tmp_path: Path) -> None:
    """Without the authors' RETAIN_TOKEN the video-only case cannot agree."""
    (tmp_path / "checkpoint").symlink_to(reference / "checkpoint")
    case = tmp_path / "cases" / "candidates_video_only"
    shutil.copytree(reference / "cases" / "candidates_video_only", case)
    assert all(row.ok for row in check.check_folder(tmp_path))
    told = json.loads((case / "case.json").read_text())
    told["env"] = {}
    (case / "case.json").write_text(json.dumps(told))
    assert not all(row.ok for row in check.check_folder(tmp_path))

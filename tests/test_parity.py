"""The package against the authors' code: goldens of our own, and their outputs where these are at hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

GOLDENS = Path(__file__).parent / "goldens"
PARITY = Path(__file__).parents[2] / "shared" / "parity"
CASES = (
    "gfl_r50_fpn",
    "gfl_r50_fpn_batch",
    "gfl_r50_fpn_empty",
    "gflv2_r50_fpn",
    "gflv2_r50_fpn_batch",
    "end_to_end_gfl_r50_fpn",
    "end_to_end_gflv2_r50_fpn",
    "atss_r50_fpn",
    "fcos_r50_fpn",
    "retinanet_r50_fpn",
    "foveabox_r50_fpn",
    "ssd512_vgg16",
)
RECIPES = sorted(path.stem for path in GOLDENS.glob("*.npz"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_official_files_give_the_goldens(recipe, monkeypatch):
    monkeypatch.syspath_prepend(str(GOLDENS))
    import outputs
    from outputs import measure
    from weights import official_state

    assert sorted(outputs.RECIPES) == RECIPES
    golden = dict(np.load(GOLDENS / f"{recipe}.npz"))
    ours = measure(recipe, official_state(json.loads((GOLDENS / f"{recipe}.json").read_text())))
    assert ours.keys() == golden.keys()
    np.testing.assert_array_equal(ours.pop("labels"), golden.pop("labels"))
    for name, value in golden.items():
        limit = 1e-3 if name in ("curve", "grad_norm") else 2e-4
        np.testing.assert_allclose(ours[name], value, rtol=limit, atol=limit * np.abs(value).max(), err_msg=name)


@pytest.mark.skipif(not PARITY.is_dir(), reason="the authors' outputs are not at hand")
def test_outputs_agree_with_the_authors_code():
    checked = subprocess.run(
        [sys.executable, PARITY / "check.py", *CASES], capture_output=True, text=True, timeout=1800, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "FAIL" not in checked.stdout
    assert f"{len(CASES)} cases, 0 checks fall short" in checked.stdout

"""The outputs of a detector trained on COCO that lie beside the repository where somebody put them."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDER = Path(__file__).parents[2] / "shared" / "real_heads"
HEADS, ANNOTATIONS = _FOLDER / "coco_val_a.npz", _FOLDER / "coco_val_a.json"
needs_real_heads = pytest.mark.skipif(not HEADS.is_file(), reason="there is no ../shared/real_heads/coco_val_a.npz")

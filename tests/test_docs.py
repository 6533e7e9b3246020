"""Every command and every piece of Python in README and docs runs, except where the page itself says why not."""

import json
import os
import re
import shlex
import subprocess
import sys
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from films import write_film
from gfocal.cli.__main__ import main
from helpers import save_eager_model

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)


def blocks(language):
    """Return (page, number, code) of each block of a language that is to be run."""
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
            if match[2] == language and not match[1]:
                found.append(pytest.param(match[3], id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as the pages suppose it: a demo run, a picture, a video, results, and a small data set."""
    folder = tmp_path_factory.mktemp("reader")
    save_eager_model(folder / "runs" / "demo")
    save_eager_model(folder / "runs" / "mine", ("thing",))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (80, 120, 3), dtype=np.uint8)).save(folder / "picture.jpg")
    write_film(folder / "clip.mp4", frames=4)
    (folder / "found").mkdir()
    (folder / "found" / "detections.jsonl").write_text('{"file": "picture.jpg", "boxes": []}\n')
    pictures = folder / "mydata" / "pictures"
    pictures.mkdir(parents=True)
    for split, indices in (("train", range(8)), ("val", range(8, 12))):
        images, annotations = [], []
        for index in indices:
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{index}.jpg")
            images.append({"id": index, "file_name": f"{index}.jpg", "height": 64, "width": 64})
            annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": [8, 8, 40, 30]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (folder / "mydata" / f"{split}.json").write_text(json.dumps(content))
    (folder / "mydata" / "data.yaml").write_text(
        "train: {images: pictures, annotations: train.json}\nval: {images: pictures, annotations: val.json}\n"
    )
    return folder


OF_THE_SHELL = frozenset({"|", "||", "&&", ">", "<", "--devices", "export"})
"""Words that need a shell, the option by which a command starts itself anew, and the verb that would trace the checks
of shapes that tests have."""


@pytest.mark.parametrize("code", blocks("bash"))
def test_commands_of_the_pages_run(place, code, monkeypatch):
    monkeypatch.chdir(place)
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["gfocal"] and not OF_THE_SHELL.intersection(words):
            run_here([name for word in words[1:] for name in sorted(glob(word)) or [word]])
        elif words:
            run_in_shell(line)


def run_here(arguments):
    """Run the command within this process, which has loaded already what takes each new one some seconds."""
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code, arguments


def run_in_shell(line):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    command = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("code", blocks("python"))
def test_python_of_the_pages_runs(place, code, monkeypatch):
    monkeypatch.chdir(place)
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})


def test_readme_is_short_and_names_the_test_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "make test" in text
    assert len(blocks("bash")) >= 2
    assert len(blocks("python")) >= 1

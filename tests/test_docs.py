"""Every command and every piece of Python in README and docs runs, except where the page itself says why not."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import nullcontext
from glob import glob
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import unchecked
from films import write_film
from gfocal.cli.__main__ import main
from helpers import save_eager_model

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)


def blocks(page):
    """Return language and code of the blocks of a page that are to be run, in their order."""
    return [(match[2], match[3]) for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if not match[1]]


@pytest.fixture
def place(tmp_path):
    """A folder as the pages suppose it: a demo run, a picture, a video, results, and a small data set."""
    folder = tmp_path
    save_eager_model(folder / "runs" / "demo")
    save_eager_model(folder / "runs" / "mine", ("thing",))
    rng = np.random.default_rng(0)
    Image.fromarray(plain(rng, 80, 120)).save(folder / "picture.jpg")
    write_film(folder / "clip.mp4", frames=4)
    (folder / "found").mkdir()
    (folder / "found" / "detections.jsonl").write_text('{"file": "picture.jpg", "boxes": []}\n')
    pictures = folder / "mydata" / "pictures"
    pictures.mkdir(parents=True)
    for split, indices in (("train", range(8)), ("val", range(8, 12))):
        images, annotations = [], []
        for index in indices:
            Image.fromarray(plain(rng, 64, 64)).save(pictures / f"{index}.jpg")
            images.append({"id": index, "file_name": f"{index}.jpg", "height": 64, "width": 64})
            annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": [8, 8, 40, 30]})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
        (folder / "mydata" / f"{split}.json").write_text(json.dumps(content))
    (folder / "mydata" / "data.yaml").write_text(
        "train: {images: pictures, annotations: train.json}\nval: {images: pictures, annotations: val.json}\n"
    )
    return folder


def plain(rng, height, width):
    """Return a picture of few colours, which takes no time to pack where it is drawn on."""
    return rng.integers(0, 256, (height // 16, width // 8, 3), dtype=np.uint8).repeat(16, axis=0).repeat(8, axis=1)


OF_THE_SHELL = frozenset({"|", "||", "&&", ">", "<"})
"""Words that need a shell."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_says_runs(place, page, monkeypatch):
    monkeypatch.chdir(place)
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, page.name, "exec"), {"__name__": "__main__"})
            continue
        for line in code.replace("\\\n", " ").splitlines():
            run_line(line)


def run_line(line):
    """Run a line of a shell, within this process if that is possible."""
    words = shlex.split(line, comments=True)
    starts_itself_anew = {"train", "--devices"} <= set(words)
    if words[:1] == ["gfocal"] and not starts_itself_anew and not OF_THE_SHELL.intersection(words):
        run_here([name for word in words[1:] for name in sorted(glob(word)) or [word]])
    elif words:
        run_in_shell(line)


def run_here(arguments):
    """Run the command within this process, which has loaded already what takes each new one some seconds."""
    try:
        # checks of shapes would become a part of what is exported
        with unchecked() if arguments[0] == "export" else nullcontext():
            main(arguments)
    except SystemExit as end:
        assert not end.code, arguments


def run_in_shell(line):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "2"}
    command = ["bash", "-euo", "pipefail", "-c", line]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_readme_is_short_and_names_the_test_command():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert "make test" in text
    languages = [language for language, _ in blocks(ROOT / "README.md")]
    assert languages.count("bash") >= 2
    assert languages.count("python") >= 1

"""Everything a user names is looked at once, whatever happens on the way."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import final

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from commands import ran
from films import write_film
from gfocal.config import Recipe
from gfocal.errors import UserError
from gfocal.finding import Result, Search, Task, find_all
from gfocal.frames import Source
from gfocal.predicting import predict_to_folder
from gfocal.predictor import Predictor
from gfocal.sharing import devices_of, find_shared, work
from gfocal.sources import Sources
from gfocal.structures import Detections
from gfocal.tiling import Tiling
from helpers import save_eager_model
from sites import Site, site

SEARCH = Search(threshold=0.3, precision="float32", edges=False)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_eager_model(folder)
    return folder


def picture(seed: int) -> Image.Image:
    """Return coarse noise, 64 pixels wide and 48 high."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((64, 48), Image.Resampling.NEAREST)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with five pictures, and a video of six frames in the middle, which the test runs in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for index in range(5):
        picture(index).save(tmp_path / "in" / f"{index}.png")
    write_film(tmp_path / "in" / "2a.avi", frames=6)
    return tmp_path


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as server:
        yield server


TITLES = ["in/0.png", "in/1.png", "in/2.png", *(f"in/2a.avi#{k}" for k in range(6)), "in/3.png", "in/4.png"]


def lines(out: Path) -> list[str]:
    return (out / "detections.jsonl").read_text().splitlines()


def titles(out: Path) -> list[str]:
    rows = [json.loads(line) for line in lines(out)]
    return [row["file"] + (f"#{row['frame']}" if "frame" in row else "") for row in rows]


def run(model: Path, names: Sequence[str], out: Path, search: Search = SEARCH, **options: object) -> list[Result]:
    told: list[Result] = []
    predict_to_folder(model, names, out, search, device="cpu", tell=told.append, **options)  # type: ignore[arg-type]
    return told


def interrupting(after: int) -> Callable[[Result], None]:
    """Return what hears results and, at so many, does what Ctrl-C does."""
    told: list[Result] = []

    def tell(result: Result) -> None:
        told.append(result)
        if len(told) == after:
            signal.raise_signal(signal.SIGINT)

    return tell


@final
class Picky(Predictor):
    """A detector that finds nothing, and refuses pictures below 32 pixels."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def find(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        *,
        scales: Sequence[tuple[float, float]] | None = None,
        threshold: float | None = None,
        precision: str | None = None,
    ) -> list[Detections]:
        if scales is not None and min(sizes[0]) / scales[0][0] < 32:
            raise UserError("too small")
        empty = torch.zeros(0)
        return [Detections(torch.zeros(0, 4), empty, empty.long(), self.class_names) for _ in sizes]

    def computing(self, precision: str | None = None) -> str:
        return "by nobody"


# ---------------------------------------------------------------- what is written


def test_each_frame_has_a_line_and_each_source_a_drawing(here: Path, model: Path) -> None:
    told = run(model, ["in"], here / "out")
    assert [result.name for result in told] == titles(here / "out") == TITLES
    assert [result.line for result in told] == lines(here / "out")
    assert all(result.num_boxes == len(json.loads(result.line)["boxes"]) > 0 for result in told)
    assert sorted(path.name for path in (here / "out").iterdir()) == [
        *("0.png", "1.png", "2.png", "2a.mp4", "3.png", "4.png", "detections.jsonl", "predict.json")
    ]
    drawn = list(Source(str(here / "out" / "2a.mp4"), "video").frames())
    assert len(drawn) == 6
    assert drawn[0].rate == 10
    assert drawn[0].picture.shape[1] % 64 == 0


def test_a_line_is_what_the_model_finds(here: Path, model: Path) -> None:
    import gfocal

    run(model, ["in/3.png", "in/2a.avi"], here / "out", draw=False)
    loaded = gfocal.load(model, device="cpu")
    rows = [json.loads(line) for line in lines(here / "out")]
    found = loaded.predict("in/3.png", threshold=0.3, precision="float32")
    assert rows[0] == {"file": "in/3.png", "height": 48, "width": 64, **json.loads(json.dumps(found.to_dict()))}
    frame = list(Source("in/2a.avi", "video").frames())[3]
    found = loaded.predict(frame.picture, threshold=0.3, precision="float32")
    expected = {"file": "in/2a.avi", "frame": 3, "seconds": 0.3, "height": 48, "width": 64}
    assert rows[4] == expected | json.loads(json.dumps(found.to_dict()))
    assert sorted(path.name for path in (here / "out").iterdir()) == ["detections.jsonl", "predict.json"]


def test_of_a_video_some_frames_can_be_looked_at(here: Path, model: Path) -> None:
    run(model, ["in/2a.avi"], here / "out", Search(0.3, precision="float32", every=4, edges=False))
    assert titles(here / "out") == ["in/2a.avi#0", "in/2a.avi#4"]
    drawn = list(Source(str(here / "out" / "2a.mp4"), "video").frames())
    assert len(drawn) == 2
    assert drawn[0].rate == 2.5


@pytest.mark.parametrize(("scale", "rate"), [(1, 90000), (1250, 1)])
def test_a_video_that_tells_no_rate_that_can_be_is_drawn_at_a_usual_one(
    here: Path, model: Path, scale: int, rate: int
) -> None:
    content = bytearray((here / "in" / "2a.avi").read_bytes())
    struct.pack_into("<II", content, content.find(b"strh") + 28, scale, rate)
    (here / "odd.avi").write_bytes(content)
    run(model, ["odd.avi"], here / "out")
    assert [frame.rate for frame in Source(str(here / "out" / "odd.mp4"), "video").frames()] == [25.0] * 6


def test_long_names_are_drawn_too(here: Path, model: Path, web: Site) -> None:
    buffer = io.BytesIO()
    picture(9).save(buffer, format="PNG")
    long = "a" * 245
    (here / f"{long}.png").write_bytes(buffer.getvalue())
    web.pages[f"/{long * 2}.png"] = buffer.getvalue()
    for resume in (False, True):
        run(model, [f"{long}.png", f"{web.url}/{long * 2}.png"], here / "out", resume=resume)
    drawn = sorted(path.stem for path in (here / "out").glob("*.png"))
    assert drawn == [long[:200], f"{long[:200]}-2"]


def test_results_within_the_pictures_are_no_pictures(here: Path, model: Path) -> None:
    for _ in range(2):
        run(model, ["."], here / "in" / "out")
        assert [title.removeprefix("./") for title in titles(here / "in" / "out")] == TITLES


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_drawings_are_not_written_among_the_pictures(here: Path, model: Path) -> None:
    before = contents(here / "in")
    for names in (["in"], ["in/0.png"], ["in/2a.avi"]):
        with pytest.raises(UserError, match=r"lies in the folder that drawings are written to"):
            run(model, names, here / "in")
    assert contents(here / "in") == before
    assert len(run(model, ["in"], here / "in", draw=False)) == len(TITLES)


@pytest.mark.parametrize(("source", "own"), [("0.png", "0.png"), ("2a.avi", "2a.mp4")])
def test_what_is_no_drawing_is_never_replaced_by_one(here: Path, model: Path, source: str, own: str) -> None:
    run(model, ["in/1.png"], here / "out")
    picture(9).save(here / "out" / own, format="PNG")
    before = contents(here / "out")
    with pytest.raises(UserError, match=rf"{own}: is there already, and no drawing"):
        run(model, [f"in/{source}"], here / "out")
    assert contents(here / "out") == before
    run(model, ["in/1.png"], here / "out")  # its drawing is one


def test_what_a_run_that_was_killed_left_of_a_drawing_goes(here: Path, model: Path) -> None:
    run(model, ["in/0.png"], here / "out")
    for name in (".0.abcd1234.png", ".2a.abcd1234.mp4", ".mine.png"):
        (here / "out" / name).touch()
    run(model, ["in"], here / "out", resume=True)
    assert [path.name for path in (here / "out").glob(".*")] == [".mine.png"]


def test_two_runs_never_write_to_one_folder(here: Path, model: Path) -> None:
    def again(result: Result) -> None:
        for resume in (False, True):
            with pytest.raises(UserError, match="out: another run is writing to it"):
                run(model, ["in"], here / "out", resume=resume)

    predict_to_folder(model, ["in/0.png"], here / "out", SEARCH, device="cpu", tell=again)
    assert titles(here / "out") == TITLES[:1]


# ---------------------------------------------------------------- what cannot be read


def test_what_pillow_warns_of_is_read_without_a_word(here: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 - 1)  # Pillow warns from here on: an error in tests
    before = list(warnings.filters)
    assert len(run(model, ["in/0.png"], here / "out")) == 1
    assert warnings.filters == before


def test_an_unreadable_picture_ends_the_run_with_its_name(here: Path, model: Path) -> None:
    (here / "in" / "1.png").write_bytes((here / "in" / "1.png").read_bytes()[:200])
    with pytest.raises(UserError, match=r"1\.png"):
        run(model, ["in"], here / "out", draw=False)
    assert titles(here / "out") == TITLES[:1]


def test_what_is_unreadable_can_be_left_out_and_is_told(here: Path, model: Path) -> None:
    (here / "in" / "1.png").write_bytes(b"nonsense")
    (here / "in" / "2a.avi").write_bytes(b"nonsense")
    told = run(model, ["in"], here / "out", on_bad_data="skip")
    assert titles(here / "out") == [title for title in TITLES if "1.png" not in title and "2a" not in title]
    faults = [result.fault for result in told if result.fault is not None]
    assert len(faults) == 2
    assert "1.png" in faults[0]
    assert "2a.avi" in faults[1]
    # what was mended in between is made up for
    picture(1).save(here / "in" / "1.png")
    assert [result.name for result in run(model, ["in"], here / "out", on_bad_data="skip", resume=True)] == [
        "in/1.png",
        "in/2a.avi",
    ]


def test_a_picture_that_the_model_refuses_is_named_and_can_be_left_out(here: Path, tiny_recipe: Recipe) -> None:
    picture(9).resize((8, 8)).save(here / "in" / "0.png")
    tasks = [Task(index, source) for index, source in enumerate(Sources(["in/0.png", "in/1.png"]))]
    first, second = find_all(Picky(tiny_recipe), tasks, SEARCH)
    assert first.fault == "in/0.png: too small"
    assert second.fault is None
    with pytest.raises(UserError, match="size"):
        next(find_all(Picky(tiny_recipe), tasks, Search(0.3, size=(96, 64))))


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["in", "missing.jpg"], {}, "missing.jpg: no such file"),
        (["camera:99"], {"resume": True}, "neither resumed nor shared"),
        (["in"], {"on_bad_data": "ignore"}, "did you mean|unknown on_bad_data"),
        (["in"], {"devices": "0"}, "devices is 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    here: Path, model: Path, names: list[str], options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        run(model, names, here / "out", **options)
    assert not (here / "out").exists()


# ---------------------------------------------------------------- interruptions


@pytest.mark.parametrize("count", [1, 5])
def test_a_run_that_is_interrupted_goes_on_to_the_same_results(here: Path, model: Path, count: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict_to_folder(model, ["in"], here / "out", SEARCH, device="cpu", tell=interrupting(count))
    assert titles(here / "out") == TITLES[:count]
    assert not list((here / "out").glob(".*"))
    with pytest.raises(UserError, match="--resume"):
        run(model, ["in"], here / "out")
    rest = run(model, ["in"], here / "out", resume=True)
    assert [result.name for result in rest] == TITLES[count:]
    run(model, ["in"], here / "whole")
    assert lines(here / "out") == lines(here / "whole")
    for drawn in ("0.png", "2a.mp4", "4.png"):
        assert (here / "out" / drawn).read_bytes() == (here / "whole" / drawn).read_bytes()


def stalled_names(web: Site) -> list[str]:
    """Return names of which the server does not answer the last but one, so that a run waits there."""
    buffer = io.BytesIO()
    picture(9).save(buffer, format="PNG")
    web.pages["/slow.png"] = buffer.getvalue()
    web.stalled.add("/slow.png")
    return ["in/0.png", "in/2a.avi", f"{web.url}/slow.png", "in/4.png"]


STALLED_AT = 7


@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_goes_on_to_the_same_results(
    here: Path, model: Path, web: Site, capsys: pytest.CaptureFixture[str], killed_by: signal.Signals
) -> None:
    names = stalled_names(web)
    arguments = ["predict", model, *names, "--out", "out", "--no-draw", "--device", "cpu", "--precision", "float32"]
    command = [sys.executable, "-m", "gfocal.cli.__main__", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        path = here / "out" / "detections.jsonl"
        end = time.monotonic() + 120
        while not (path.exists() and len(lines(here / "out")) == STALLED_AT) and time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        process.send_signal(killed_by)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == (-signal.SIGKILL if killed_by is signal.SIGKILL else 130)
    assert "Traceback" not in err
    assert len(titles(here / "out")) == STALLED_AT
    with path.open("a") as file:
        file.write('{"file": "in/4.png", "hei')  # as a full disk would leave it
    web.go.set()
    code, _, _ = ran(capsys, *arguments, "--resume")
    assert code == 0
    run(model, names, here / "whole", draw=False)
    assert lines(here / "out") == lines(here / "whole")
    assert len(lines(here / "out")) == STALLED_AT + 2


def test_a_stream_that_is_interrupted_is_finished(here: Path, model: Path) -> None:
    content = write_film(here / "a.avi", frames=600).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with suppress(OSError):
                connection.sendall(content[: len(content) // 4])  # what FFmpeg looks at before the first frame
                for start in range(len(content) // 4, len(content), 2000):
                    connection.sendall(content[start : start + 2000])
                    time.sleep(0.05)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(KeyboardInterrupt):
            predict_to_folder(model, [address], here / "out", SEARCH, device="cpu", tell=interrupting(3))
        thread.join()
    rows = [json.loads(line) for line in lines(here / "out")]
    assert [row["file"] for row in rows] == [address] * 3
    assert rows[0]["frame"] < rows[1]["frame"] < rows[2]["frame"]
    # as fast as it came: a picture stands where the next ones were lost
    drawn = list(Source(str(here / "out" / "127.0.0.1.mp4"), "video").frames())
    assert len(drawn) == rows[2]["frame"] - rows[0]["frame"] + 1
    assert len(run(model, ["in/0.png"], here / "out")) == 1  # nothing is left to resume


# ---------------------------------------------------------------- memory


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("draw", [False, True])
def test_many_pictures_need_no_more_memory_than_few(here: Path, model: Path, draw: bool) -> None:
    size = (600, 800)
    (here / "many").mkdir()
    Image.new("RGB", size[::-1]).save(here / "many" / "0.png")
    for index in range(1, 10):
        (here / "many" / f"{index}.png").hardlink_to(here / "many" / "0.png")

    def peak(names: Sequence[str], out: Path) -> int:
        tracemalloc.start()
        try:
            run(model, names, out, Search(0.3, size=(32, 64), precision="float32", edges=False), draw=draw)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(["many/0.png"], here / "first")  # what is loaded once
    least = peak(["many/0.png", "many/1.png"], here / "few")
    most = peak(["many"], here / "all")
    assert most < least + 4 * size[0] * size[1] * 3  # two more waiting, and the one that is being made


def test_a_long_video_needs_no_more_memory_than_a_short_one(here: Path, tiny_recipe: Recipe) -> None:
    size = (300, 400)
    film = write_film(here / "long.avi", frames=60, size=size)
    task = Task(0, Source(str(film), "video"))

    def peak(every: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in find_all(Picky(tiny_recipe), [task], Search(0.3, every=every))) == 60 // every
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(30)  # what is loaded once
    # two frames waiting, one being made, one being looked at; and what the network would be given of it, in float32
    assert peak(1) < 16 * size[0] * size[1] * 3


def test_a_model_without_candidates_cannot_see_tiles(here: Path, tiny_recipe: Recipe) -> None:
    with pytest.raises(UserError, match="give the weights"):
        list(find_all(Picky(tiny_recipe), [], Search(0.3, tiling=Tiling.of(64))))


# ---------------------------------------------------------------- several devices


def test_devices_are_counted_or_named() -> None:
    assert devices_of("3", "cpu") == ("cpu",) * 3
    assert devices_of("cpu, cpu", "auto") == ("cpu", "cpu")
    if not torch.cuda.is_available():
        assert devices_of("2", "auto") == ("cpu", "cpu")
        with pytest.raises(UserError, match="no CUDA device"):
            devices_of("2", "cuda")
        with pytest.raises(UserError, match="unknown device 'cuda:0'"):
            devices_of("0,1", "auto")
    with pytest.raises(UserError, match="unknown device 'cqu'"):
        devices_of("cpu,cqu", "auto")


def test_two_processes_find_what_one_does(here: Path, model: Path) -> None:
    (here / "in" / "1.png").write_bytes(b"nonsense")
    told = run(model, ["in"], here / "two", devices="cpu,cpu", on_bad_data="skip")
    run(model, ["in"], here / "one", on_bad_data="skip")
    assert sorted(lines(here / "two")) == sorted(lines(here / "one"))
    assert ["1.png" in (result.fault or "") for result in told].count(True) == 1
    assert sorted(path.name for path in (here / "two").iterdir()) == sorted(
        path.name for path in (here / "one").iterdir()
    )
    # a video is looked at by one process, so that its frames come in order
    assert [title for title in titles(here / "two") if "#" in title] == TITLES[3:9]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("number", "how"), [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGTERM, "exit code 143")], ids=["kill", "term"]
)
def test_a_process_that_dies_ends_all_with_one_error(
    here: Path, model: Path, web: Site, number: signal.Signals, how: str
) -> None:
    tasks = iter([Task(n, source) for n, source in enumerate(Sources(stalled_names(web)))])
    results = find_shared(model, ["cpu"], tasks, SEARCH)
    for _ in range(STALLED_AT):
        next(results)
    (child,) = multiprocessing.active_children()
    assert child.pid is not None
    os.kill(child.pid, number)
    with pytest.raises(UserError, match=rf"the process on cpu died \({how}\)"):
        next(results)
    assert multiprocessing.active_children() == []


def test_processes_end_with_who_started_them(here: Path, model: Path, web: Site) -> None:
    tasks = iter([Task(n, source) for n, source in enumerate(Sources(stalled_names(web)))])
    results = find_shared(model, ["cpu"], tasks, SEARCH)
    next(results)
    began = time.monotonic()
    results.close()
    assert multiprocessing.active_children() == []
    assert time.monotonic() - began < 30


def test_what_a_process_refuses_is_told_as_it_is() -> None:
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    asking, asking_there = multiprocessing.Pipe()
    telling, telling_there = multiprocessing.Pipe(duplex=False)
    try:
        work("nowhere", "cpu", search=SEARCH, asking=asking_there, telling=telling_there, threads=1, pictures=None)
        with pytest.raises(UserError, match="nowhere: no such file"):
            raise telling.recv()
    finally:
        signal.signal(signal.SIGTERM, handler)
        torch.set_num_threads(threads)
        for end in (asking, asking_there, telling, telling_there):
            end.close()

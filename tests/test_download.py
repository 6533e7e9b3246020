from __future__ import annotations

import hashlib
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gfocal.download import fetch
from gfocal.errors import UserError

DATA = random.Random(0).randbytes(600_000)
OTHER = random.Random(1).randbytes(len(DATA))
ALL = len(DATA)
HALF = ALL // 2
SHA = hashlib.sha256(DATA).hexdigest()


class Site(ThreadingHTTPServer):
    """Serves DATA under every path; what is in `script` answers the first requests, one each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[Answer] = []
        self.requests: list[int] = []  # the byte that each began with
        self.served = 0
        self.open = threading.Event()  # ends what stalls
        self.url = f"http://127.0.0.1:{self.server_port}/v2/weights.pth"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: here clients hang up on purpose."""


class Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.first = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        self.server.requests.append(self.first)
        answer = self.server.script.pop(0) if self.server.script else whole
        answer(self)

    def answer(self, status: int, body: bytes = b"", **fields: object) -> None:
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.server.served += len(body)
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


Answer = Callable[[Handler], None]


def whole(handler: Handler, *, data: bytes = DATA, upto: int | None = None) -> None:
    """Answer as a good server does; with `upto` close the connection before that byte, which was promised."""
    first, last = handler.first, len(data) - 1
    if first > last:
        handler.answer(416, Content_Range=f"bytes */{len(data)}")
    elif first:
        span = f"bytes {first}-{last}/{len(data)}"
        handler.answer(206, data[first:upto], Content_Length=len(data) - first, Content_Range=span)
    else:
        handler.answer(200, data[:upto], Content_Length=len(data))


def other(handler: Handler) -> None:
    whole(handler, data=OTHER)


def cut(upto: int) -> Answer:
    return lambda handler: whole(handler, upto=upto)


def stalled(upto: int) -> Answer:
    def answer(handler: Handler) -> None:
        whole(handler, upto=upto)
        handler.server.open.wait(120.0)

    return answer


def status(code: int, body: bytes = b"", **fields: object) -> Answer:
    """Answer always the same; without Content_Length the body ends where the connection does."""
    return lambda handler: handler.answer(code, body, **fields)


def ranged(first: int, last: int) -> Answer:
    span = f"bytes {first}-{last}/{ALL}"
    return status(206, DATA[first : last + 1], Content_Length=last + 1 - first, Content_Range=span)


CHUNKED = b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in (DATA[:HALF], DATA[HALF:], b""))


def serving(site: Site) -> Iterator[Site]:
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield site
    site.open.set()
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serving(Site())


def quick(url: str, folder: Path, *, sha256: str = SHA, timeout: float = 10.0, attempts: int = 3) -> Path:
    return fetch(url, folder, sha256=sha256, timeout=timeout, attempts=attempts, show=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_whole(path: Path) -> None:
    assert path.read_bytes() == DATA
    assert names(path.parent) == ["weights.pth"]


def started(site: Site, folder: Path, *, before: str = "", show: bool = False) -> subprocess.Popen[str]:
    """Start a process that fetches the file, after the line `before`."""
    code = f"{before}\nimport sys\nfrom pathlib import Path\nfrom gfocal.download import fetch\n"
    code += f"fetch(sys.argv[1], Path(sys.argv[2]), sha256={SHA!r}, show={show})"
    return subprocess.Popen([sys.executable, "-c", code, site.url, folder], stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> str:
    """Return what a process wrote to standard error, once it is at its end."""
    with process:
        return process.communicate(timeout=60)[1]


def until_there(folder: Path, *sizes: int) -> None:
    """Wait until the files in a folder have these sizes."""
    end = time.monotonic() + 60
    while [path.stat().st_size for path in folder.iterdir()] != list(sizes):
        assert time.monotonic() < end, names(folder)
        time.sleep(0.01)


def test_a_file_comes_whole_and_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    path = quick(f"{site.url}?download=true", tmp_path / "deep" / "er", sha256=SHA[:8].upper())
    assert path == tmp_path / "deep" / "er" / "weights.pth"
    assert_whole(path)
    assert quick(site.url, path.parent) == path
    assert site.requests == [0]


def test_progress_is_shown_where_it_is_wanted(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fetch(site.url, tmp_path, sha256=SHA)
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].startswith("weights.pth, percent 100/100")
    assert shown[-1].endswith("0.6 of 0.6 MB")
    assert len(shown) <= 11
    quick(site.url, tmp_path / "again")
    assert capsys.readouterr().err == ""


def test_an_address_with_spaces_and_letters_of_other_alphabets(site: Site, tmp_path: Path) -> None:
    path = quick(site.url.replace("weights", "my%20own weights é"), tmp_path)
    assert path.name == "my own weights é.pth"
    assert path.read_bytes() == DATA


@pytest.mark.parametrize(
    ("script", "requests", "served"),
    [
        ([cut(HALF), cut(HALF + 1000)], [0, HALF, HALF + 1000], ALL),
        ([cut(HALF), status(200, DATA, Content_Length=ALL)], [0, HALF], HALF + ALL),
        ([cut(HALF), ranged(5, 14)], [0, HALF, 0], HALF + 10 + ALL),
        ([cut(HALF), ranged(HALF, HALF + 9)], [0, HALF, HALF + 10], ALL),
        ([status(500)], [0, 0], ALL),
        ([cut(HALF), status(503)], [0, HALF, HALF], ALL),
        ([other], [0, 0], 2 * ALL),
        ([status(302, Location="/a b"), cut(HALF), status(308, Location="c")], [0, 0, HALF, HALF], ALL),
        ([status(301, Location="b"), status(303, Location="/c"), status(307, Location="d")], [0] * 4, ALL),
        ([status(200, CHUNKED, Transfer_Encoding="chunked")], [0], len(CHUNKED)),
        ([status(200, DATA)], [0], ALL),
        ([stalled(ALL)], [0], ALL),  # all is there, but the connection stays open
    ],
)
def test_a_file_comes_whole_in_spite_of(
    site: Site, tmp_path: Path, script: list[Answer], requests: list[int], served: int
) -> None:
    site.script = list(script)
    assert_whole(quick(site.url, tmp_path))
    assert site.requests == requests
    assert site.served == served


@pytest.mark.parametrize(
    ("there", "requests"),
    [
        (DATA[:HALF], [HALF]),
        (OTHER[:HALF], [HALF, 0]),  # found out at the end
        (OTHER, [ALL, 0]),
        (OTHER + b"more", [ALL + 4, 0]),
        (DATA, []),  # from a process that was killed before it gave the name
    ],
    ids=["half", "half of another", "another", "longer", "whole"],
)
def test_what_is_there_is_gone_on_with(site: Site, tmp_path: Path, there: bytes, requests: list[int]) -> None:
    (tmp_path / "weights.pth.part").write_bytes(there)
    assert_whole(quick(site.url, tmp_path, attempts=1))
    assert site.requests == requests


def test_what_came_before_a_stall_stays_for_the_next_request_and_call(site: Site, tmp_path: Path) -> None:
    site.script = [stalled(HALF), stalled(HALF + 10)]
    with pytest.raises(UserError, match=r"cannot be downloaded \(timed out\)"):
        quick(site.url, tmp_path, timeout=1.5, attempts=2)
    assert names(tmp_path) == ["weights.pth.part"]
    assert_whole(quick(site.url, tmp_path))
    assert site.requests == [0, HALF, HALF + 10]
    assert site.served == ALL


@pytest.mark.parametrize(
    ("answer", "requests", "message"),
    [
        (status(502), 2, r"cannot be downloaded \(status 502\)"),
        (ranged(5, 14), 2, r"cannot be downloaded \(status 206\)"),
        (other, 2, f"expected SHA-256 {SHA}, got {hashlib.sha256(OTHER).hexdigest()}"),
        (status(403), 1, "status 403"),
        (status(404), 1, "status 404"),
        (status(304), 1, "status 304"),
        (status(301, Location="weights.pth"), 10, "leads to .* not followed"),
        (status(302, Location="ftp://127.0.0.1/weights.pth"), 1, "leads to ftp://127.0.0.1/weights.pth"),
        (status(302, Location="file:///etc/passwd"), 1, "leads to file:///etc/passwd"),
        (status(302, Location="http://["), 2, "cannot be downloaded"),
        (status(302, Location="http://127.0.0.1:x/c"), 2, "cannot be downloaded"),
    ],
)
def test_what_cannot_be_had_is_named_and_leaves_nothing(
    site: Site, tmp_path: Path, answer: Answer, requests: int, message: str
) -> None:
    site.script = [answer] * 20
    with pytest.raises(UserError, match=f"^{site.url}: .*{message}"):
        quick(site.url, tmp_path, attempts=2)
    assert len(site.requests) == requests
    assert names(tmp_path) == []


def test_a_network_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"
    begin = time.monotonic()
    with pytest.raises(UserError) as caught:
        quick(url, tmp_path, attempts=9)
    assert time.monotonic() - begin < 30  # the pauses alone would be 64 s
    assert re.fullmatch(f"{url}: .*refused.* put the file into {re.escape(str(tmp_path))} by hand", str(caught.value))
    assert names(tmp_path) == []


@pytest.mark.parametrize("sha256", ["", SHA[:7], SHA + "0", "x" * 64, SHA[:8] + "\n"])
def test_a_hash_that_is_none_is_refused(tmp_path: Path, sha256: str) -> None:
    with pytest.raises(ValueError, match="sha256 must be 8 to 64 hexadecimal digits"):
        quick("http://127.0.0.1:1/weights.pth", tmp_path, sha256=sha256)


ENDS = ("", "..", ".a", "%2e%2e", "a%2F..", "a%5Cb", "c:a", "a%00b", "a%0Ab")


@pytest.mark.parametrize("url", ["a.pth", "ftp://host/a.pth", "http://host", *(f"http://host/{end}" for end in ENDS)])
def test_an_address_that_names_no_file_of_the_web_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="is not the address of a file"):
        quick(url, tmp_path / "cache")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_named(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"file/below/weights\.pth: cannot be written \(Not a directory\)"):
        quick(site.url, tmp_path / "file" / "below")


def test_a_disk_that_takes_no_more_is_not_taken_for_the_network(site: Site, tmp_path: Path) -> None:
    limit = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({HALF}, {HALF}))"  # fails as a full disk does
    errors = ended(started(site, tmp_path, before=limit))
    assert f"{tmp_path / 'weights.pth'}: cannot be written (File too large)" in errors.splitlines()[-1]
    assert len(site.requests) == 1
    assert names(tmp_path) == ["weights.pth.part"]


def test_a_second_process_waits_for_the_first(site: Site, tmp_path: Path) -> None:
    site.script = [stalled(HALF)]
    first = started(site, tmp_path)
    until_there(tmp_path, HALF)
    second = started(site, tmp_path, show=True)
    assert second.stderr is not None
    assert second.stderr.readline() == "weights.pth: waiting for another process that downloads it\n"
    site.open.set()
    assert ended(first) == ended(second) == ""
    assert_whole(tmp_path / "weights.pth")
    assert site.served == ALL


def test_another_process_goes_on_where_one_was_killed(site: Site, tmp_path: Path) -> None:
    site.script = [stalled(HALF)]
    process = started(site, tmp_path)
    until_there(tmp_path, HALF)
    process.send_signal(signal.SIGKILL)
    assert ended(process) == ""
    assert names(tmp_path) == ["weights.pth.part"]
    assert_whole(quick(site.url, tmp_path))
    assert site.requests == [0, HALF]
    assert site.served == ALL


def test_many_at_once_end_with_one_file(site: Site, tmp_path: Path) -> None:
    site.script = [other, other, cut(HALF)]  # the first one has lost both its chances, so another has to begin
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(quick, site.url, tmp_path) for _ in range(6)]
        wait(calls, return_when=FIRST_EXCEPTION)  # the part that the others wait for is gone: these find a new one
        calls += [pool.submit(quick, site.url, tmp_path) for _ in range(6)]
    assert sum(call.exception() is not None for call in calls) == 1
    assert_whole(tmp_path / "weights.pth")
    assert site.served == 3 * ALL


WITHOUT_LOCKS = "import sys\nsys.modules['fcntl'] = None"  # as on Windows, where it cannot be imported


def test_without_locks_each_process_has_a_part_of_its_own(site: Site, tmp_path: Path) -> None:
    site.script = [stalled(HALF), stalled(HALF)]
    processes = [started(site, tmp_path, before=WITHOUT_LOCKS) for _ in range(2)]
    until_there(tmp_path, HALF, HALF)
    assert names(tmp_path) == sorted(f"weights.pth.{process.pid}.part" for process in processes)
    site.open.set()
    assert [ended(process) for process in processes] == ["", ""]
    assert_whole(tmp_path / "weights.pth")
    assert site.requests[2:] == [HALF, HALF]


def test_without_locks_no_part_is_left_behind(site: Site, tmp_path: Path) -> None:
    site.script = [cut(HALF), status(404)]
    assert "status 404" in ended(started(site, tmp_path, before=WITHOUT_LOCKS))
    assert names(tmp_path) == []


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Return a key and a certificate of 127.0.0.1 for it, in one file."""
    options = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=gfocal -keyout - -out -"
    command = ["openssl", "req", "-x509", *options.split(), "-addext", "subjectAltName=IP:127.0.0.1"]
    path = tmp_path / "both.pem"
    path.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return path


@pytest.fixture
def encrypted(certificate: Path) -> Iterator[Site]:
    site = Site()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    site.socket = context.wrap_socket(site.socket, server_side=True)
    site.url = site.url.replace("http:", "https:")
    yield from serving(site)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_encrypted_connections_are_checked_and_not_left_for_plain_ones(
    site: Site, encrypted: Site, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="certificate verify failed"):
        quick(encrypted.url, tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    site.script = [status(302, Location=encrypted.url)] * 2
    encrypted.script = [cut(HALF), whole, status(302, Location=site.url)]
    assert_whole(quick(site.url, tmp_path / "cache"))
    assert encrypted.requests == [0, HALF]
    with pytest.raises(UserError, match=f"leads to {site.url}: this redirect is not followed"):
        quick(encrypted.url, tmp_path / "again")
    assert site.requests == [0, HALF]

"""Entry of the command: verbs, and the form of every error."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated, cast

import typer

from gfocal.cli.audit import audit
from gfocal.cli.benchmark import benchmark
from gfocal.cli.calibrate import calibrate
from gfocal.cli.convert import convert
from gfocal.cli.demo import demo
from gfocal.cli.doctor import doctor
from gfocal.cli.evaluate import evaluate
from gfocal.cli.explain import explain
from gfocal.cli.export import export
from gfocal.cli.predict import predict
from gfocal.cli.recipes import recipes
from gfocal.cli.reproduce import reproduce
from gfocal.cli.rescore import rescore
from gfocal.cli.train import train
from gfocal.errors import UserError
from gfocal.version import __version__

USER_MISTAKE = 2
# newer typer brings click along under a name of its own: both have this common base of mistaken usage
UsageMistake = cast(type[typer.BadParameter], typer.BadParameter.__mro__[2])
INTERRUPTED = 130

app = typer.Typer(
    name="gfocal",
    help="Object detectors whose box edges are probability distributions (Generalized Focal Loss V1 and V2).\n\n"
    "New here? `gfocal demo` trains, evaluates and shows a small model in minutes. Then `gfocal recipes` lists the "
    "models, `gfocal train --recipe gflv2_r18_mini --data DATA` learns your own pictures, and "
    "`gfocal predict runs/NAME PICTURES` finds boxes with them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    demo,
    train,
    evaluate,
    predict,
    explain,
    calibrate,
    export,
    benchmark,
    convert,
    reproduce,
    doctor,
    rescore,
    audit,
)
for verb in VERBS:
    app.command()(verb)
app.add_typer(recipes, name="recipes")


def _show_version(asked: bool | None) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = None,
) -> None:
    """See the help text of the app."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; mistakes of the user end with one line on standard error and exit code 2."""
    try:
        with _remarks_on_stderr(), _terminated_tidily():
            code = app(args=arguments or sys.argv[1:] or ["--help"], standalone_mode=False)
        if code == INTERRUPTED:  # newer typer returns this where older ones raise
            raise KeyboardInterrupt
    except UserError as error:
        _fail(str(error))
    except UsageMistake as error:
        _fail(f"{error.format_message()} (see gfocal --help)")
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


@contextmanager
def _terminated_tidily() -> Generator[None]:
    """Leave the command on SIGTERM as on Ctrl-C, so that nothing half-written stays; training has its own answer."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _remarks_on_stderr() -> Generator[None]:
    """Show what the package has to say of its choices, one line each."""
    logger, handler = logging.getLogger("gfocal"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _fail(message: str) -> None:
    print(f"gfocal: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(USER_MISTAKE) from None


if __name__ == "__main__":
    main()

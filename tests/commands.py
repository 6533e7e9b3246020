"""The command line within the process of a test."""

from __future__ import annotations

from gfocal.cli.__main__ import main


def ran(capsys, *arguments):
    """Return exit code, standard output and standard error of a command."""
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err

"""Run a command line, and turn whatever ends it into a line of the log and an exit status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING

import click

from pandas_amr._api.cli.commands import COMMANDS
from pandas_amr._api.cli.exits import (
    DONE,
    FAILED,
    SIGNALLED,
    USAGE,
    Signalled,
    WrongUsage,
    signals_raise,
)
from pandas_amr._api.cli.log_lines import find_log_format, use_log
from pandas_amr._api.cli.values import NO_KEYS, has_key_in_name
from pandas_amr._records.keywords import closest_keyword
from pandas_amr._records.log import LOGGER
from pandas_amr.errors import AMRError, PlanError, RunStopped, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


def run_command_line(arguments: Sequence[str]) -> int:
    """Run the command that arguments name.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage, 3 partial, 128 and its number after a
        signal.
    """
    with use_log(find_log_format(arguments)):
        try:
            with signals_raise():
                return _run(arguments)
        except Signalled as signalled:
            return _end_by_signal(signalled)
        except (click.ClickException, WrongUsage, UsageError) as error:
            LOGGER.error("%s", _in_one_line(_describe_usage(error)))
            return USAGE
        except PlanError as error:
            LOGGER.error("%s", _in_one_line(str(error)))
            return USAGE if error.partial is None else FAILED
        except (RunStopped, AMRError) as error:
            LOGGER.error("%s: %s", type(error).__name__, _in_one_line(str(error)))
            return FAILED
        except BrokenPipeError:
            _let_go_of_stdout()
            LOGGER.error("Nobody reads the answer on stdout.")
            return FAILED
        except OSError as error:
            LOGGER.error("%s", _in_one_line(f"{error.filename or 'A file'}: {error.strerror}"))
            return FAILED
        except Exception as error:  # noqa: BLE001 (its text may quote a cell)
            return _end_by_bug(error)


def _run(arguments: Sequence[str]) -> int:
    try:
        with COMMANDS.make_context("amr", list(arguments)) as context:
            status = COMMANDS.invoke(context)
    except click.exceptions.Exit as ended:  # of --help and --version
        return ended.exit_code
    return status if isinstance(status, int) else DONE


def _end_by_signal(signalled: Signalled) -> int:
    kept = _in_one_line(str(signalled)) or "Nothing was sent; the same command begins anew."
    LOGGER.warning("Stopped by %s. %s", signal.Signals(signalled.number).name, kept)
    return SIGNALLED + signalled.number


def _end_by_bug(error: Exception) -> int:
    LOGGER.error("%s was raised. AMR_DEBUG=1 shows where.", type(error).__name__)
    if os.environ.get("AMR_DEBUG"):
        traceback.print_exception(error)
    return FAILED


def _describe_usage(error: Exception) -> str:
    """Say what would be right in place of a wrong option or argument."""
    if isinstance(error, click.NoSuchOption):
        return _describe_option(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    return str(error)


def _describe_option(error: click.NoSuchOption) -> str:
    if has_key_in_name(error.option_name):
        return f"There is no option {error.option_name}. {NO_KEYS}"
    names: list[str] = []
    if error.ctx is not None:
        for parameter in error.ctx.command.get_params(error.ctx):
            names += [name.lstrip("-") for name in parameter.opts if name.startswith("--")]
    meant = closest_keyword(error.option_name.lstrip("-").replace("-", "_"), names)
    if meant is not None:
        return f"There is no option {error.option_name}. Did you mean --{meant}?"
    listed = ", ".join(f"--{name}" for name in names)
    return f"There is no option {error.option_name}. There are: {listed}."


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _let_go_of_stdout() -> None:
    """Let Python not fail once more at its end, when it flushes stdout."""
    if sys.stdout is None:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)

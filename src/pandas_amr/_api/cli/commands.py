"""The commands and their options."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

import pandas_amr
from pandas_amr._api import verbs
from pandas_amr._api.cli.answer import print_json
from pandas_amr._api.cli.exits import DONE, WrongUsage
from pandas_amr._api.cli.files import (
    FORMATS,
    Place,
    check_out,
    find_places,
    iterate_records,
    read_frame,
    write_frame,
    write_whole,
)
from pandas_amr._api.cli.log_lines import LOG_FORMATS
from pandas_amr._api.cli.request import CommandOptions, choose_journal, make_request
from pandas_amr._api.cli.values import read_age, read_most_failed
from pandas_amr._api.cli.work import carry_out
from pandas_amr._records.log import LOGGER
from pandas_amr._records.suggest import did_you_mean
from pandas_amr._units.cells import cell

if TYPE_CHECKING:
    from collections.abc import Callable

    from pandas_amr._journal.journal import Journal
    from pandas_amr._plan.plan import Plan

Function = TypeVar("Function", bound="Callable[..., Any]")


class Choice(click.Choice):  # type: ignore[type-arg]
    """One of some words; a wrong one is refused with the one that may be meant."""

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Check a word."""
        if value not in self.choices:
            listed = ", ".join(map(str, self.choices))
            self.fail(
                f"{value!r} is none of {listed}.{did_you_mean(value, self.choices)}", param, ctx
            )
        return value


class Commands(click.Group):
    """Commands by name; a wrong name is refused with the one that may be meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the first argument names."""
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            names = self.list_commands(ctx)
            listed = ", ".join(names)
            raise WrongUsage(f"There is no command {name!r}: {listed}.{did_you_mean(name, names)}")
        return super().resolve_command(ctx, args)


def with_log_option(function: Function) -> Function:
    """Add the option that says how the log is written; it is read before all others."""
    option = click.option(
        "--log-format",
        type=Choice(LOG_FORMATS),
        default="text",
        expose_value=False,
        help="How lines on stderr are written: text, or a JSON object each.",
    )
    return option(function)


def with_question(function: Function) -> Function:
    """Add the options that say what is asked, of which rows and which model."""
    options = [
        click.argument("source", metavar="FILE"),
        click.option("--task", help="The question; what is not given below is planned from it."),
        click.option("--plan", help="A plan's file, or its JSON."),
        click.option(
            "--columns", multiple=True, help="The columns that the model reads: a,b. Default: all."
        ),
        click.option("--map", help="What to find in each row."),
        click.option(
            "--finding",
            multiple=True,
            help="The fields to find: severity:int, kind=bug|billing, a file with a JSON schema, "
            "or module:Class.",
        ),
        click.option(
            "--reduce",
            multiple=True,
            help="How to reduce: severity:mean,kind:value_counts; or a text, for agents.",
        ),
        click.option("--by", multiple=True, help="What to group the answer by: a,b."),
        click.option("--output", help="The type of the answer: str, int, module:Class, ..."),
        click.option("--out", help="Where the rows go, with what was found; renamed into place."),
        click.option(
            "--format",
            type=Choice(FORMATS),
            help="The format of a file whose name does not tell it, and of stdin.",
        ),
        click.option("--lm", help="The model's name. Default: AMR_MODEL."),
        click.option("--base-url", help="The server. Default: OPENAI_BASE_URL."),
        click.option("--prices", help="What the model costs: INPUT,OUTPUT per million tokens."),
        click.option("--budget", help="Money (5), or calls=100,tokens=1000000,seconds=60."),
        click.option("--journal", help="A file, or off. Default: AMR_JOURNAL, or the user's own."),
        click.option(
            "--max-parallelism", type=click.IntRange(min=1), help="Most requests in flight."
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return with_log_option(function)


@click.group(cls=Commands, no_args_is_help=False, name="amr")
@click.version_option(pandas_amr.__version__, prog_name="amr")
def COMMANDS() -> None:  # noqa: N802 (what the package runs)
    """Read every row of a table with a language model.

    The answer is JSON on stdout, the log is on stderr. Keys come from the environment
    (OPENAI_API_KEY). Exit status: 0 done, 1 failed, 2 wrong usage, 3 partial, 130 and 143 after
    SIGINT and SIGTERM. The same command again goes on.
    """


@COMMANDS.command()
@click.option(
    "--max-failed",
    help="Most rows that may fail in a run that counts as done: 1% or 5. Default: 0.",
)
@with_question
def run(max_failed: str | None, **options: Any) -> int:
    """Ask about the rows of FILE (- for stdin)."""
    most_failed = read_most_failed(max_failed)
    return carry_out(make_request(CommandOptions(**options)), most_failed)


@COMMANDS.command()
@with_question
def plan(**options: Any) -> int:
    """Derive the plan of a run; its JSON is the answer, and goes to --out, too."""
    out = options.pop("out")
    place = None if out is None else Place(out, Path(out), "jsonl")
    made = _make_plan(CommandOptions(**options, out=None), place)
    text = made.to_json()
    if place is not None:
        write_whole(f"{text}\n".encode(), Path(place.name))
    LOGGER.info("Estimate: %s", made.estimate())
    print_json(json.loads(text))
    return DONE


@COMMANDS.command()
@click.option("--sample", type=click.IntRange(min=1), help="Map so many rows, and scale up.")
@with_question
def estimate(sample: int | None, **options: Any) -> int:
    """Estimate what a run would take, and say what would leave the machine."""
    if options["out"] is not None:
        raise WrongUsage("estimate writes no rows: leave out --out.")
    made = _make_plan(CommandOptions(**options), None)
    estimated = made.estimate(sample)
    outgoing = made.outgoing()
    answer = dataclasses.asdict(dataclasses.replace(estimated, outgoing=None))
    del answer["outgoing"]
    answer |= {"tokens": estimated.tokens, "text": str(estimated)}
    answer["sends"] = {
        "to": list(outgoing.models),
        "columns": list(outgoing.sent),
        "not_columns": list(outgoing.unsent),
        "redacted_by": outgoing.redact,
    }
    print_json(cell(answer))
    return DONE


def _make_plan(options: CommandOptions, out: Place | None) -> Plan:
    if out is not None:
        source, _ = find_places(options.source, None, options.format)
        check_out(out, source)
    request = make_request(options)
    return verbs.plan(request.frame, **request.question, **request.settings)


@COMMANDS.group(cls=Commands, no_args_is_help=False)
def journal() -> None:
    """Look after the journal, which keeps what was paid for."""


def with_journal(function: Function) -> Function:
    """Add the option that names the journal, and hand the open journal to the command."""

    @functools.wraps(function)
    def open_and_call(journal: str | None, **options: Any) -> int:
        status: int = function(_open_existing(journal), **options)
        return status

    option = click.option("--journal", help="The file. Default: AMR_JOURNAL, or the user's own.")
    return with_log_option(option(open_and_call))  # type: ignore[return-value]


def _open_existing(given: str | None) -> Journal:
    """Open a journal that is there.

    Raises:
        WrongUsage: there is none.
    """
    if given is not None and given != "off" and not Path(given).exists():
        raise WrongUsage(f"There is no journal {given!r}.")
    opened = choose_journal(given)
    if opened is None:
        raise WrongUsage("There is no journal: it is off. Name one: --journal FILE.")
    return opened


@journal.command()
@with_journal
def ls(journal: Journal) -> int:
    """List the runs, and how much the journal holds."""
    print_json(
        {
            "journal": str(journal.path),
            "answers": len(journal),
            "corrections": journal.corrections,
            "bytes": journal.size(),
            "transcripts": journal.count_transcripts(),
            "runs": list(iterate_records(journal.runs())),
        }
    )
    return DONE


@journal.command()
@with_journal
@click.option("--out", help="A file for the answers, in place of stdout.")
@click.option(
    "--format", type=Choice(FORMATS), help="The file's format, if its name does not tell."
)
def export(journal: Journal, out: str | None, format: Any) -> int:
    """Write out all answers that the journal holds."""
    answers = journal.export()
    answer = {"journal": str(journal.path), "answers": len(answers), "out": out}
    if out is None:
        print_json(answer | {"entries": list(iterate_records(answers))})
        return DONE
    source = Place(str(journal.path), journal.path, "jsonl")
    place, _ = find_places(out, None, format)
    check_out(place, source)
    write_frame(answers, place)
    print_json(answer)
    return DONE


@journal.command()
@with_journal
@click.option("--older-than", help="Delete answers made longer ago: 30 (days), 90d, 12h, 2w.")
@click.option(
    "--keep", type=click.IntRange(min=0), help="Keep the answers to what the last runs asked."
)
@click.option("--corrections", is_flag=True, help="Delete what people corrected, too.")
def prune(
    journal: Journal,
    older_than: str | None,
    keep: int | None,
    corrections: bool,  # noqa: FBT001 (click hands it over by name)
) -> int:
    """Delete old answers, and return their space to the disk."""
    age = read_age(older_than)
    if age is None and keep is None:
        raise WrongUsage("prune takes --older-than AGE, --keep RUNS, or both.")
    deleted = journal.prune(older_than=age, keep=keep, corrections=corrections)
    print_json(
        {
            "journal": str(journal.path),
            "deleted": deleted,
            "answers": len(journal),
            "bytes": journal.size(),
        }
    )
    return DONE


@journal.command()
@click.argument("rows", required=False)
@with_journal
@click.option("--text", help="Forget answers that hold a text, or were asked with it.")
@click.option("--kind", help="Forget answers of a kind: correction takes corrections back.")
@click.option("--key", help="Forget the answer of a key, as export has it.")
@click.option("--model", help="Forget answers of a model.")
@click.option("--run", type=int, help="Forget the answers of a run, by its number in ls.")
@click.option("--before", help="Forget answers made before a time, such as 2026-01-31; UTC.")
@click.option("--after", help="Forget answers made after a time.")
@click.option(
    "--format", type=Choice(FORMATS), help="The file's format, if its name does not tell."
)
def forget(journal: Journal, rows: str | None, format: Any, **labels: str | int | None) -> int:
    """Remove what was found of the rows of a file, or what options name, from every byte."""
    where = {name: value for name, value in labels.items() if value is not None}
    if (rows is None) == (not where):
        raise WrongUsage("forget takes a file of rows, or options such as --text TEXT.")
    if rows is None:
        forgotten = journal.forget(where=where)
    else:
        place, _ = find_places(rows, None, format)
        forgotten = journal.forget(read_frame(place))
    print_json({"journal": str(journal.path)} | dataclasses.asdict(forgotten))
    return DONE

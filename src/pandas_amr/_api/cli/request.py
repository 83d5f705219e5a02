"""What a command asks for: the rows, the question and the model, all checked before a request."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from pandas_amr._api.cli.exits import WrongUsage
from pandas_amr._api.cli.files import check_out, check_rows_fit, find_places, read_frame
from pandas_amr._api.cli.values import (
    NO_KEYS,
    find_labels,
    has_key_in_name,
    read_budget,
    read_finding,
    read_output,
    read_prices,
    read_reduce,
)
from pandas_amr._context.wiring import check_budget, resolve_lm
from pandas_amr._journal.journal import open_journal
from pandas_amr._plan.plan import read_plan
from pandas_amr.errors import UsageError
from pandas_amr.models.base import LM

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from pandas_amr._api.cli.files import Format, Place
    from pandas_amr._journal.journal import Journal
    from pandas_amr._records.usage import Budget

LOCAL = "local"
DATABASE_MAGIC = b"SQLite format 3\0"
NO_MODEL = (
    "No model is named: --lm NAME, or AMR_MODEL in the environment; "
    f"--lm {LOCAL} for a small one in this process."
)
NO_QUESTION = (
    "Say what you want: --task TEXT; or --map TEXT with --finding and --reduce; or --plan FILE."
)


@dataclass(frozen=True)
class CommandOptions:
    """The options that ``run``, ``plan`` and ``estimate`` share, as they were given."""

    source: str
    task: str | None
    plan: str | None
    columns: tuple[str, ...]
    map: str | None
    finding: tuple[str, ...]
    reduce: tuple[str, ...]
    by: tuple[str, ...]
    output: str | None
    out: str | None
    format: Format | None
    lm: str | None
    base_url: str | None
    prices: str | None
    budget: str | None
    journal: str | None
    max_parallelism: int | None


@dataclass(frozen=True)
class Request:
    """What a verb of the library is given.

    Attributes:
        frame: the rows.
        question: what it is asked.
        settings: how it runs.
        is_map_only: whether nothing is reduced.
        journal: where findings are kept; None for nowhere.
        out: where the rows go.
    """

    frame: pd.DataFrame
    question: Mapping[str, Any]
    settings: Mapping[str, Any]
    is_map_only: bool
    journal: Journal | None
    out: Place | None


def make_request(options: CommandOptions) -> Request:
    """Read the options and the rows.

    Raises:
        WrongUsage: an option or the file cannot be used.
        UsageError: likewise, in the library's words.
        PlanError: the plan cannot be used.
    """
    asked = _read_question(options)
    is_map_only = _is_map_only(options, has_reduce=asked["reduce"] is not None)
    budget, lm = read_budget(options.budget), make_lm(options)
    if budget is not None and budget.money is not None:
        check_money(budget, lm)
    source, out = find_places(options.source, options.out, options.format)
    if out is not None:
        check_out(out, source)
    journal = choose_journal(options.journal)
    frame = read_frame(source)
    if out is not None:
        check_rows_fit(frame, out)
    asked |= {
        "columns": find_labels(options.columns, frame),
        "by": find_labels(options.by, frame),
    }
    question = {name: value for name, value in asked.items() if value is not None}
    settings = {
        "lm": lm,
        "budget": budget,
        "journal": False if journal is None else journal,
        "max_parallelism": options.max_parallelism,
    }
    return Request(frame, question, settings, is_map_only, journal, out)


def _read_question(options: CommandOptions) -> dict[str, Any]:
    """Read what is asked, but for the columns, which take the rows."""
    return {
        "task": options.task,
        "plan": options.plan,
        "map": options.map,
        "finding": read_finding(options.finding),
        "reduce": read_reduce(options.reduce),
        "output": read_output(options.output),
    }


def _is_map_only(options: CommandOptions, *, has_reduce: bool) -> bool:
    """Tell whether nothing is reduced.

    Raises:
        WrongUsage: nothing is asked, or an option is about a reduce that is not there.
    """
    texts = {"--task": options.task, "--map": options.map, "--plan": options.plan}
    for name, value in texts.items():
        if value is not None and not value.strip():
            raise WrongUsage(f"{name} is empty.")
    plan = read_plan(options.plan)
    questions = (options.task, options.map, plan.map_instruction)
    if all(question is None for question in questions):
        raise WrongUsage(NO_QUESTION)
    parts = (plan.reduce_instruction, plan.aggregations, plan.ranking)
    reduces = has_reduce or options.task is not None or any(part is not None for part in parts)
    if reduces:
        return False
    has_option = {"--by": bool(options.by), "--output": options.output is not None}
    for name, is_given in has_option.items():
        if is_given:
            raise WrongUsage(f"{name} is about an answer, and nothing is reduced: add --reduce.")
    return True


def make_lm(options: CommandOptions) -> LM | str:
    """Return the model that the options name, or else the environment.

    Raises:
        WrongUsage: none is named.
    """
    name = os.environ.get("AMR_MODEL") if options.lm is None else options.lm
    if not name or not name.strip():
        raise WrongUsage(NO_MODEL)
    check_address(options.base_url)
    prices = read_prices(options.prices)
    if options.base_url is None and prices is None:
        return name
    return LM(name, base_url=options.base_url, prices=prices)


def check_address(base_url: str | None) -> None:
    """Check that an address holds no key.

    Raises:
        WrongUsage: it does; the message does not repeat it.
    """
    if base_url is None:
        return
    url = urlsplit(base_url)
    if "@" in url.netloc or any(has_key_in_name(name) for name, _ in parse_qsl(url.query)):
        raise WrongUsage(f"--base-url holds a key. {NO_KEYS}")


def check_money(budget: Budget | None, lm: LM | str) -> None:
    """Check that a budget of money can be kept.

    Raises:
        WrongUsage: the prices are not known.
    """
    if lm == LOCAL:
        return
    try:
        check_budget(budget, [resolve_lm(lm)])
    except UsageError:
        raise WrongUsage(
            "--budget in money needs prices, and those of this model are not known: "
            '--prices INPUT,OUTPUT per million tokens, or pip install "pandas-amr[prices]".'
        ) from None


def choose_journal(given: str | None) -> Journal | None:
    """Open the journal that ``--journal`` names, or else the environment, or the default one.

    Raises:
        WrongUsage: it names a folder.
        JournalError: the file cannot be used.
        UsageError: the environment's name cannot be used.
    """
    if given is None:
        return open_journal(None, by_default=True)
    if given.strip().casefold() in {"off", "false", "no", "none"}:
        return None
    if not given.strip():
        raise WrongUsage("--journal takes a file, or 'off'.")
    if Path(given).is_dir():
        raise WrongUsage(f"--journal {given!r} is a folder; name a file in it, or 'off'.")
    if not _may_be_journal(Path(given)):
        raise WrongUsage(f"--journal {given!r} is no journal; name another file, or 'off'.")
    return open_journal(Path(given), by_default=True)


def _may_be_journal(path: Path) -> bool:
    """Tell whether a file is a database, or is not there yet; another one would be set aside."""
    try:
        with path.open("rb") as file:
            start = file.read(len(DATABASE_MAGIC))
    except OSError:  # the journal says why it cannot be read
        return True
    return start in {b"", DATABASE_MAGIC}

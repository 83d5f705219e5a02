"""The log: whatever does not end well reaches it at WARNING, in every verb; cells and keys never do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pandas as pd
import pydantic
import pytest

import pandas_amr as amr
from moments import never, until
from pandas_amr._records.log import LOGGER
from pandas_amr.testing import ScriptedServer, Status, findings
from processes import run_python

ROWS = 6
CELL = "what only a cell says"
KEY = "scripted-key"
PLAN = {"shard_size": 1}
OPTIONS: dict[str, Any] = {"columns": ["text"], "plan": PLAN, "max_parallelism": 1, "journal": False}
MAPPED: dict[str, Any] = OPTIONS | {"finding": {"n": int}}

pytestmark = pytest.mark.filterwarnings("ignore::pandas_amr.AMRWarning")


def rows() -> pd.DataFrame:
    return pd.DataFrame({"text": [f"row {number}, {CELL}" for number in range(ROWS)], "shop": list("aaabbb")})


def number_of(request: Any) -> int:
    return int(request.units[0]["text"].split()[1].rstrip(","))


def answer(request: Any) -> Any:
    match request.schema:
        case "reduction":
            return {"output": f"All of {CELL}.", "sources": [0]}
        case "plan":
            return Status(400, f"no plan for {CELL}")
    return findings(request, lambda unit: {"n": 1, "amr_keep": True})


# What goes wrong


def one_row_fails(request: Any) -> Any:
    is_map = request.schema in {"finding", "findings"}
    return Status(400, f"no {CELL}") if is_map and number_of(request) == 3 else answer(request)


def all_rows_fail(request: Any) -> Any:
    return answer(request) if request.schema == "reduction" else Status(400, f"no {CELL}")


def reduce_fails(request: Any) -> Any:
    return Status(400, f"no {CELL}") if request.schema == "reduction" else answer(request)


def puts_off(request: Any) -> Any:
    """Serve two requests, and nothing more for hours."""
    return answer(request) if request.number < 2 else Status(429, f"no {CELL}", headers={"retry-after": "21600"})


def is_off(request: Any) -> Any:
    return Status(429, f"no {CELL}", headers={"retry-after": "21600"})


def wrong_key(request: Any) -> Any:
    return Status(401, f"Incorrect API key provided: {KEY}, for {CELL}")


TWO_CALLS = {"budget": amr.Budget(calls=2)}
NO_CALL = {"budget": amr.Budget(tokens=1)}
RAISES = {"errors": "raise"}
Problem = tuple[Any, dict[str, Any]]
IN_A_MAP: dict[str, Problem] = {
    "a row fails": (one_row_fails, {}),
    "a row fails, raised": (one_row_fails, RAISES),
    "all rows fail": (all_rows_fail, {}),
    "the budget": (answer, TWO_CALLS),
    "the budget, raised": (answer, TWO_CALLS | RAISES),
    "nothing fits the budget": (answer, NO_CALL),
    "the service puts off": (puts_off, {}),
    "the service puts off, raised": (puts_off, RAISES),
    "the key is wrong": (wrong_key, {}),
}
IN_A_REDUCE: dict[str, Problem] = {
    "the reduce fails": (reduce_fails, {}),
    "the reduce fails, raised": (reduce_fails, RAISES),
    "nothing fits the budget": (answer, NO_CALL),
    "the service puts off": (is_off, {}),
    "the key is wrong": (wrong_key, {}),
}
IN_A_PLAN: dict[str, Problem] = {
    "no plan": (answer, {}),
    "nothing fits the budget": (answer, NO_CALL),
    "the key is wrong": (wrong_key, {}),
}


# The verbs


def start(lm: Any, **options: Any) -> Any:
    return rows().amr.start(map="Which?", reduce={"n": "sum"}, lm=lm, **MAPPED, **options).result()


def await_start(lm: Any, **options: Any) -> Any:
    async def run() -> Any:
        return await rows().amr.start(map="Which?", reduce={"n": "sum"}, lm=lm, **MAPPED, **options)

    return asyncio.run(run())


def start_and_leave(lm: Any, **options: Any) -> None:
    """Begin a run that nobody waits for, and let it come to its end."""
    run = rows().amr.start(map="Which?", reduce={"n": "sum"}, lm=lm, **MAPPED, **options)
    until(run.done)


def of_the_run(options: dict[str, Any]) -> dict[str, Any]:
    return {"journal": False, "max_parallelism": 1} | options


def in_a_recipe(lm: Any, **options: Any) -> Any:
    recipe = amr.Recipe().map("Which?", columns=["text"], finding={"n": int}, plan=PLAN).reduce({"n": "sum"})
    return recipe(rows(), lm=lm, **of_the_run(options))


def in_a_later_stage(lm: Any, **options: Any) -> Any:
    recipe = amr.Recipe().then(lambda frame: frame).filter("Is it?", columns=["text"], plan=PLAN).then(len)
    return recipe(rows(), lm=lm, **of_the_run(options))


def in_a_recipe_as_map(lm: Any, **options: Any) -> Any:
    inner = amr.Recipe().map("Which?", columns=["text"], finding={"n": int}).reduce({"n": "sum"}, output=int)
    return rows().amr.map(inner, finding={"n": int}, lm=lm, **OPTIONS, **options)


def in_a_function(lm: Any, **options: Any) -> Any:
    """Call a verb in a function that maps: a run within a run."""

    def inner(shard: pd.DataFrame) -> Any:
        return shard.amr.map("Which?", lm=lm, **MAPPED, **options)[["n"]]

    return rows().amr.map(inner, journal=False)


def first_result(script: Any) -> Any:
    """Map with another provider of the same model, whose log is not looked at."""
    with ScriptedServer(script) as server:
        result = amr.result_of(rows().amr.map("Which?", lm=server.lm(), **MAPPED))
    LOGGER.warning("FORGET")
    return result


def retry(lm: Any, **options: Any) -> Any:
    return first_result(all_rows_fail).retry(lm=lm, **options)


def verify(lm: Any) -> Any:
    return first_result(answer).verify(lm=lm, share=1.0)


def by_a_mapper(lm: Any, **options: Any) -> Any:
    return amr.mapper("Which?", lm=lm, **MAPPED, **options)(rows())


def sampled(lm: Any, **options: Any) -> Any:
    plan = rows().amr.plan(map="Which?", reduce={"n": "sum"}, lm=lm, **MAPPED, **options)
    return plan.estimate(sample=4)


Verb = tuple[Any, dict[str, Problem]]
VERBS: dict[str, Verb] = {
    "map": (lambda lm, **options: rows().amr.map("Which?", lm=lm, **MAPPED, **options), IN_A_MAP),
    "two maps": (lambda lm, **options: rows().amr.map({"a": "Which?", "b": "And?"}, lm=lm, **MAPPED, **options), IN_A_MAP),
    "a series": (lambda lm, **options: rows()["text"].amr.map("Which?", lm=lm, **MAPPED, **options), IN_A_MAP),
    "filter": (lambda lm, **options: rows().amr.filter("Is it?", lm=lm, **OPTIONS, **options), IN_A_MAP),
    "reduce": (lambda lm, **options: rows().amr.reduce("Say it.", output=str, lm=lm, **OPTIONS, **options), IN_A_REDUCE),
    "reduce by groups": (
        lambda lm, **options: rows().amr.reduce("Say it.", output=str, by="shop", lm=lm, **OPTIONS, **options),
        IN_A_REDUCE,
    ),
    "reduce of a groupby": (
        lambda lm, **options: rows().groupby("shop").amr.reduce("Say it.", output=str, lm=lm, **OPTIONS, **options),
        IN_A_REDUCE,
    ),
    "a mapper": (by_a_mapper, IN_A_MAP),
    "retry": (retry, {name: problem for name, problem in IN_A_MAP.items() if "budget" not in problem[1]}),
    "verify": (verify, {name: IN_A_MAP[name] for name in ("a row fails", "all rows fail", "the key is wrong")}),
    "map_reduce": (
        lambda lm, **options: rows().amr.map_reduce(map="Which?", reduce={"n": "sum"}, lm=lm, **MAPPED, **options),
        IN_A_MAP,
    ),
    "map_reduce to a text": (
        lambda lm, **options: rows().amr.map_reduce(map="Which?", reduce="Say it.", lm=lm, **MAPPED, **options),
        IN_A_MAP | {"the reduce fails": (reduce_fails, {})},
    ),
    "map_reduce of a task": (lambda lm, **options: rows().amr.map_reduce("What?", lm=lm, **OPTIONS, **options), IN_A_PLAN),
    "plan": (lambda lm, **options: rows().amr.plan("What?", lm=lm, **OPTIONS, **options), IN_A_PLAN),
    "estimate by a sample": (sampled, {"all rows fail": IN_A_MAP["all rows fail"], "the key is wrong": (wrong_key, {})}),
    "start": (start, IN_A_MAP),
    "start, awaited": (await_start, IN_A_MAP),
    "start, left alone": (start_and_leave, IN_A_MAP),
    "a recipe": (in_a_recipe, IN_A_MAP),
    "a recipe's later stage": (in_a_later_stage, IN_A_MAP),
    "a recipe as a map": (in_a_recipe_as_map, IN_A_MAP),
    "a run in a function": (in_a_function, IN_A_MAP),
}  # fmt: skip
SHORT = {
    "map",
    "filter",
    "reduce",
    "map_reduce",
    "map_reduce to a text",
    "plan",
    "start",
    "start, left alone",
    "a recipe",
}
CASES = [
    pytest.param(verb, problem, id=f"{verb}-{problem}", marks=[] if verb in SHORT else [pytest.mark.long])
    for verb, (_, problems) in VERBS.items()
    for problem in problems
]


def logged(caplog: Any, least: int = logging.WARNING) -> list[str]:
    """What was logged, but for what a test did before."""
    lines = [one.getMessage() for one in caplog.records if one.name == "pandas_amr" and one.levelno >= least]
    return lines[lines.index("FORGET") + 1 :] if "FORGET" in lines else lines


@pytest.mark.parametrize(("verb", "problem"), CASES)
@pytest.mark.sampled(5)
def test_whatever_goes_wrong_in_whatever_verb_is_logged_as_a_warning_without_cells_and_keys(verb, problem, caplog):
    run, problems = VERBS[verb]
    script, options = problems[problem]
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(script) as server:
        try:
            run(server.lm(), **options)
        except amr.AMRError:
            assert problem not in {"a row fails", "the reduce fails"} or verb == "a run in a function"
    assert logged(caplog)
    assert CELL not in caplog.text
    assert KEY not in caplog.text


LOUD = {
    "a function of the user's": lambda shard: {}[shard["text"].iloc[0]],
    "one that says it": lambda shard: (_ for _ in ()).throw(ValueError(f"{shard['text'].iloc[0]}; no number: none")),
}


@pytest.mark.parametrize("how", ["map", "filter", "reduce", "raised"])
@pytest.mark.parametrize("name", LOUD)
def test_what_a_function_raised_over_a_cell_is_not_logged(name, how, caplog):
    function = LOUD[name]
    with caplog.at_level(logging.INFO, "pandas_amr"):
        if how == "map":
            rows().amr.map(function, journal=False)
        elif how == "filter":
            rows().amr.filter(function, journal=False)
        elif how == "raised":
            with pytest.raises(amr.MapFailed):
                rows().amr.map(function, journal=False, errors="raise")
        else:
            with pytest.raises(amr.RunStopped):
                rows().amr.reduce(function, journal=False)
    assert logged(caplog)
    assert CELL not in "\n".join(logged(caplog, logging.DEBUG))


def test_what_a_service_says_is_not_logged_by_a_run_that_gives_up(caplog):
    many = pd.concat([rows()] * 2, ignore_index=True)
    many["text"] += many.index.astype(str)
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(all_rows_fail) as server:
        result = amr.result_of(many.amr.map("Which?", lm=server.lm(), **MAPPED))
    (line,) = logged(caplog)
    assert "failed and none succeeded, all for one reason: The server answered 400 (model)" in line
    assert CELL in result.stopped
    assert CELL not in caplog.text


def cancel(run: Any) -> None:
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        run.result()


def leave_block(run: Any) -> None:
    with run:
        pass


@pytest.mark.parametrize("stop", [cancel, leave_block])
def test_a_run_that_is_stopped_is_logged_with_what_it_has(stop, caplog):
    async def hold(request: Any) -> Any:
        if number_of(request) == 2:
            await never(request)
        return answer(request)

    with caplog.at_level(logging.WARNING, "pandas_amr"), ScriptedServer(hold) as server:
        run = rows().amr.start(map="Which?", reduce={"n": "sum"}, lm=server.lm(), **MAPPED)
        until(lambda: run.progress.found == 2)
        stop(run)
        until(lambda: logged(caplog))
    (line,) = logged(caplog)
    assert line.startswith("map_reduce of 6 rows: cancelled, ")
    assert "2 of 6 rows" in line


LINES: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a row": (one_row_fails, {}, "done, with failures, 100%"),
    "all rows": (all_rows_fail, {}, "no row succeeded, 100%"),
    "the budget": (answer, TWO_CALLS, "stopped (The budget of 2 calls is used up), "),
    "the service": (puts_off, {}, "stopped (The server answered 429), "),
    "raised": (one_row_fails, RAISES, "failed (MapFailed), "),
    "the key": (wrong_key, {}, "failed (ModelConfigError: "),
}


@pytest.mark.parametrize("problem", LINES)
@pytest.mark.sampled(3)
def test_the_line_says_how_the_run_ended_and_stands_there_once_whether_a_bar_is_shown_or_not(problem, caplog):
    script, options, text = LINES[problem]
    for progress in (None, True, False):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "pandas_amr"), ScriptedServer(script) as server:
            try:
                rows().amr.map_reduce(
                    map="Which?", reduce={"n": "sum"}, lm=server.lm(), progress=progress, **MAPPED, **options
                )
            except amr.RunStopped:
                assert text.startswith("failed")
        (line,) = logged(caplog)
        assert text in line
        assert line.startswith("map_reduce of 6 rows: ")


def test_a_run_that_ends_well_logs_no_warning(caplog):
    with caplog.at_level(logging.INFO, "pandas_amr"), ScriptedServer(answer) as server:
        start(server.lm())
    assert [one.levelname for one in caplog.records if one.name == "pandas_amr"] == ["INFO", "INFO"]


def test_warnings_of_the_library_are_logged_once_each(caplog):
    def seedless(request: Any) -> Any:
        if "seed" in request.body:
            return Status(400, "Unsupported parameter: 'seed' is not supported with this model.")
        return answer(request)

    with caplog.at_level(logging.WARNING, "pandas_amr"), ScriptedServer(seedless) as server:
        start(server.lm(seed=7))
    (line,) = logged(caplog)
    assert "seed" in line


def test_a_warning_about_a_plan_is_logged_as_it_is_issued(caplog):
    planned = {
        "map_instruction": "Which?", "finding": [{"name": "n", "type": "int", "choices": [], "description": ""}],
        "many_per_row": False, "segmentation": "rows", "group_columns": [], "shard_size": 1, "parallelism": 1,
        "where": "", "by": [], "aggregations": [{"field": "n", "function": "sum"}], "reduce_instruction": "",
        "ranking": {"field": "n", "most": 10, "lowest_first": False},
    }  # fmt: skip

    def script(request: Any) -> Any:
        return planned if request.schema == "plan" else answer(request)

    with caplog.at_level(logging.WARNING, "pandas_amr"), ScriptedServer(script) as server:
        result = rows().amr.map_reduce("What?", lm=server.lm(), **OPTIONS)
    assert "the ranking (" in str(result.warnings[0])
    assert logged(caplog) == [str(result.warnings[0])]


def test_a_plan_whose_json_cannot_hold_a_check_is_logged(caplog):
    class Number(pydantic.BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def is_small(cls, value: int) -> int:
            return value

    amr.Plan(map_instruction="Which?", finding=Number).to_json()
    (line,) = logged(caplog)
    assert line.startswith("A plan's JSON cannot hold: finding: ")


STDERR = """
import logging, sys, pandas as pd, pandas_amr as amr
from pandas_amr.testing import ScriptedServer, Status, findings
if sys.argv[1] == "configured":
    logging.basicConfig(format="LOG %(message)s")
def script(request):
    if request.schema == "reduction":
        return {"output": "All.", "sources": [0]}
    failed = "1" in request.units[0]["text"]
    return Status(400, "no") if failed else findings(request, lambda unit: {"n": 1})
df = pd.DataFrame({"text": ["row 0", "row 1"]})
with ScriptedServer(script) as server:
    for reduce in ({"n": "sum"}, "Say it."):
        print("NEXT", file=sys.stderr)
        df.amr.map_reduce(map="Which?", finding={"n": int}, reduce=reduce, lm=server.lm(), journal=False,
                          plan={"shard_size": 1})
"""


@pytest.mark.long
@pytest.mark.parametrize(("set_up", "lines"), [("not configured", [0, 1]), ("configured", [1, 1])])
def test_without_a_reader_of_the_log_stderr_has_once_what_went_wrong(set_up, lines):
    done = run_python(STDERR, set_up)
    assert done.returncode == 0, done.stderr
    _, *runs = done.stderr.split("NEXT")
    assert [run.count("FailureWarning") for run in runs] == [1, 0]  # a text shows no number that rests on fewer rows
    assert [run.count("done, with failures") for run in runs] == lines
    assert done.stderr.count("LOG ") == (2 if set_up == "configured" else 0)

"""``configure`` is for the process, ``settings`` for a block: only its own names, only inside, only in its context."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading

import pandas as pd
import pytest

import pandas_amr as amr
from numbered import provider
from pandas_amr._context.settings import current_settings
from pandas_amr.testing import ScriptedServer

DF = pd.DataFrame({"text": ["row 1", "row 2"]})
DEFAULTS = {
    "lm": None,
    "max_parallelism": None,
    "max_steps": 6,
    "errors": "coerce",
    "progress": None,
    "budget": None,
    "journal": None,
    "trace": "nodes",
    "on_event": None,
    "telemetry": None,
}


@pytest.fixture(autouse=True)
def _process_as_it_was():
    yield
    amr.configure(**DEFAULTS)
    assert now() == (6, "coerce", None)


def now():
    """Three settings, as they hold here."""
    known = current_settings()
    return known.max_steps, known.errors, known.max_parallelism


def in_thread(function, *args):
    """What a function gives in another thread, which has a context of its own."""
    given = []
    thread = threading.Thread(target=lambda: given.append(function(*args)))
    thread.start()
    thread.join()
    return given[0]


# What a block changes, and for whom


def test_a_block_changes_its_own_names_and_later_settings_of_the_process_are_seen_in_it_and_stay():
    with amr.settings(max_steps=2):
        amr.configure(errors="raise")
        assert now() == (2, "raise", None)
        amr.configure(max_steps=9)
        assert now() == (2, "raise", None)
    assert now() == (9, "raise", None)


def test_the_inner_block_wins_and_the_outer_one_holds_for_what_it_does_not_name():
    with amr.settings(max_steps=2, errors="raise"):
        with amr.settings(max_steps=3, max_parallelism=4):
            assert now() == (3, "raise", 4)
        assert now() == (2, "raise", None)
    assert now() == (6, "coerce", None)


def test_none_in_a_block_takes_back_what_the_process_says():
    amr.configure(max_parallelism=4)
    with amr.settings(max_parallelism=None):
        assert now() == (6, "coerce", None)
    assert now() == (6, "coerce", 4)


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_a_block_ends_with_an_exception_and_lets_it_through(raised):
    with pytest.raises(raised), amr.settings(max_steps=2):
        raise raised
    assert now() == (6, "coerce", None)


def test_other_threads_do_not_see_a_block_and_those_that_copy_its_context_do_even_after_it():
    with amr.settings(max_steps=2):
        assert in_thread(now) == (6, "coerce", None)
        copied = contextvars.copy_context()
        assert in_thread(copied.run, now) == (2, "coerce", None)
    assert in_thread(copied.run, now) == (2, "coerce", None)
    assert now() == (6, "coerce", None)


def test_tasks_have_blocks_of_their_own_and_those_begun_in_a_block_keep_it():
    async def task(steps, here, there):
        with amr.settings(max_steps=steps):
            here.set()
            await there.wait()
            return now()

    async def both():
        one, other = asyncio.Event(), asyncio.Event()
        with amr.settings(errors="raise"):
            tasks = [asyncio.create_task(task(2, one, other)), asyncio.create_task(task(3, other, one))]
        found = await asyncio.gather(*tasks)
        return [*found, now()]

    assert asyncio.run(both()) == [(2, "raise", None), (3, "raise", None), (6, "coerce", None)]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1), (0, 2, 1), (1, 2, 0), (2, 1, 0)])
def test_blocks_may_end_in_any_order(order):
    blocks = [amr.settings(max_steps=2), amr.settings(errors="raise"), amr.settings(max_steps=3, max_parallelism=4)]
    expected = {
        frozenset({0, 1}): (2, "raise", None),
        frozenset({0, 2}): (3, "coerce", 4),
        frozenset({1, 2}): (3, "raise", 4),
        frozenset({0}): (2, "coerce", None),
        frozenset({1}): (6, "raise", None),
        frozenset({2}): (3, "coerce", 4),
        frozenset(): (6, "coerce", None),
    }
    for block in blocks:
        block.__enter__()
    left = {0, 1, 2}
    for number in order:
        blocks[number].__exit__(None, None, None)
        left.discard(number)
        assert now() == expected[frozenset(left)]


def test_an_object_may_be_used_again_and_in_itself():
    block = amr.settings(max_steps=2)
    for _ in range(2):
        with block:
            with block, amr.settings(errors="raise"):
                assert now() == (2, "raise", None)
            assert now() == (2, "coerce", None)
        assert now() == (6, "coerce", None)
    with pytest.raises(amr.UsageError, match="has ended already"):
        block.__exit__(None, None, None)


def test_an_object_may_be_used_in_several_threads_at_once():
    block = amr.settings(max_steps=2)
    entered, left = threading.Barrier(2), threading.Barrier(2)

    def first():
        with block:
            entered.wait(30)
            left.wait(30)
            return now()

    seen = []
    thread = threading.Thread(target=lambda: seen.append(first()))
    thread.start()
    with block:
        entered.wait(30)
    assert now() == (6, "coerce", None)
    left.wait(30)
    thread.join()
    assert seen == [(2, "coerce", None)]


def test_a_block_that_is_left_in_another_context_ends_in_its_own():
    def held():
        with amr.settings(max_steps=2):
            yield

    generator = held()
    next(generator)
    assert now() == (2, "coerce", None)
    in_thread(generator.close)
    assert now() == (6, "coerce", None)
    copied, block = contextvars.copy_context(), amr.settings(max_steps=2)
    copied.run(block.__enter__)
    assert now() == (6, "coerce", None)
    block.__exit__(None, None, None)
    assert copied.run(now) == (6, "coerce", None)


def test_settings_decorate_functions_and_refuse_those_that_run_later():
    @amr.settings(max_steps=2)
    def inside(depth):
        return inside(depth - 1) if depth else now()

    assert inside(3) == (2, "coerce", None)
    assert now() == (6, "coerce", None)

    async def coroutine(): ...

    def generator():
        yield

    async def both():
        yield

    for later in (coroutine, generator, both, 3):
        with pytest.raises(amr.UsageError, match="with amr.settings"):
            amr.settings(max_steps=2)(later)


# The wrong spelling


WRONG_USES = {
    "with": lambda made: made.__enter__(),
    "ExitStack": lambda made: contextlib.ExitStack().enter_context(made),
    "async with": lambda made: asyncio.run(contextlib.AsyncExitStack().enter_async_context(made)),
    "decorator": lambda made: made(now),
}


@pytest.mark.parametrize("use", WRONG_USES)
def test_configure_as_a_block_is_refused_and_changes_nothing(use):
    amr.configure(max_steps=4)
    with pytest.raises(amr.UsageError, match=r"with amr\.settings\(max_steps=\.\.\., errors=\.\.\.\):"):
        WRONG_USES[use](amr.configure(max_steps=2, errors="raise"))
    assert now() == (4, "coerce", None)


def test_configure_in_a_with_statement_is_refused_before_its_body():
    with pytest.raises(amr.UsageError, match=r"with amr\.settings\(\.\.\.\): \.\.\."):  # noqa: SIM117
        with amr.configure(max_steps=2):
            pytest.fail("the body ran")
    assert now() == (6, "coerce", None)


def test_a_refused_block_takes_back_no_more_than_its_own():
    wrong = amr.configure(max_steps=2, errors="raise")
    amr.configure(max_steps=7, max_parallelism=3)
    with pytest.raises(amr.UsageError), wrong:
        pass
    assert now() == (7, "coerce", 3)


WRONG = {
    "an unknown name": (
        {"weather": "x"},
        r"There is no setting 'weather'. CALLER\(\.\.\.\) takes: lm, max_parallelism",
    ),
    "a name of other libraries": ({"model": "x"}, r"There is no setting 'model'. Did you mean CALLER\(lm=\.\.\.\)\?"),
    "nearly a name": ({"max_step": 3}, r"There is no setting 'max_step'. Did you mean CALLER\(max_steps=\.\.\.\)\?"),
    "what is inside": ({"of_block": {}}, "There is no setting 'of_block'"),
    "no parallelism": ({"max_parallelism": 0}, r"CALLER\(max_parallelism=\.\.\.\) takes a whole number from 1, not 0"),
    "half a step": ({"max_steps": 1.5}, r"CALLER\(max_steps=\.\.\.\) takes a whole number from 1, not 1.5"),
    "a truth": ({"max_steps": True}, r"CALLER\(max_steps=\.\.\.\) takes a whole number"),
    "steps that have no None": (
        {"max_steps": None},
        r"CALLER\(max_steps=\.\.\.\) takes a whole number from 1, not None",
    ),
    "errors that have no None": ({"errors": None}, r'CALLER\(errors=\.\.\.\) takes "coerce" or "raise", not None'),
    "pandas' third way": ({"errors": "ignore"}, r'CALLER\(errors=\.\.\.\) takes "coerce" or "raise"'),
    "errors in a list": ({"errors": ["raise"]}, r"CALLER\(errors=\.\.\.\) takes"),
    "progress in words": ({"progress": "yes"}, r"CALLER\(progress=\.\.\.\) takes True, False or None, not 'yes'"),
    "a level that is none": (
        {"trace": "ful"},
        r"CALLER\(trace=\.\.\.\) takes \"nodes\", \"full\" or \"off\", not 'ful'. Did you mean 'full'",
    ),
    "a level that has no None": ({"trace": None}, r"CALLER\(trace=\.\.\.\) takes"),
    "a budget that is a number": ({"budget": 3}, r"CALLER\(budget=\.\.\.\) takes amr.Budget\(money="),
    "a journal that is a number": ({"journal": 0}, r"CALLER\(journal=\.\.\.\) takes a path, amr.Journal\(path\)"),
    "a journal without a name": ({"journal": ""}, r"CALLER\(journal=\.\.\.\) takes a path"),
    "a model that is none": ({"lm": 3}, r"CALLER\(lm=\.\.\.\) takes amr.LM\(\"name\"\)"),
    "a model without a name": ({"lm": ""}, r"CALLER\(lm=\.\.\.\) takes amr.LM"),
    "a phase that is none": (
        {"lm": {"filter": "x"}},
        r"CALLER\(lm=\.\.\.\) by phase takes plan, map, reduce, not 'filter'",
    ),
    "a phase without a model": ({"lm": {"map": None}}, r"CALLER\(lm=\.\.\.\) takes amr.LM"),
    "a listener that is none": ({"on_event": "print"}, r"CALLER\(on_event=\.\.\.\) takes a function of one event"),
    "telemetry in words": ({"telemetry": "yes"}, r"CALLER\(telemetry=\.\.\.\) takes True, False or None, not 'yes'"),
    "telemetry by its name": ({"otel": True}, r"Did you mean CALLER\(telemetry=\.\.\.\)\?"),
    "one wrong of two": ({"max_steps": 3, "errors": "x"}, r"CALLER\(errors=\.\.\.\) takes"),
}


@pytest.mark.parametrize("caller", ["configure", "settings"])
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_told_in_the_words_of_the_call_and_changes_nothing(case, caller):
    given, told = WRONG[case]
    with pytest.raises(amr.UsageError, match=told.replace("CALLER", caller)):
        getattr(amr, caller)(**given)
    assert now() == (6, "coerce", None)


@pytest.mark.parametrize("caller", ["configure", "settings"])
@pytest.mark.parametrize("given", [("errors", "raise"), ({"errors": "raise"},)], ids=["pairs", "dict"])
def test_settings_without_names_as_pandas_takes_them_are_refused(caller, given):
    with pytest.raises(amr.UsageError, match=rf'{caller}\(errors="raise"\)'):
        getattr(amr, caller)(*given)


def test_what_was_given_may_change_afterwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phases = {"map": amr.LM("a", base_url="http://127.0.0.1:1/v1")}
    block = amr.settings(lm=phases, journal="kept.sqlite")
    phases.clear()
    monkeypatch.chdir("/")
    with block:
        assert list(current_settings().lm) == ["map"]
        assert current_settings().journal == tmp_path / "kept.sqlite"


def test_what_is_shown_of_settings_is_their_names():
    assert repr(amr.settings(max_steps=2, errors="raise")) == "<settings max_steps, errors>"
    assert repr(amr.configure(max_steps=2)) == "<configured max_steps>"
    assert amr.configure()._ipython_display_() is None


# What settings reach


def numbers(frame):
    """A map of the user's that asks a model, which its own call does not name."""
    return frame.amr.map("Which?", finding={"n": int})[["n"]]


def total(frame):
    """A reduce of the user's that does."""
    return int(DF.amr.map("Which?", finding={"n": int})["n"].sum())


REACHED = {
    "a verb": lambda: DF.amr.map("Which?", finding={"n": int})["n"].tolist(),
    "an agent": lambda: DF.amr.map(amr.Agent("Which?", role="A reader"), finding={"n": int})["n"].tolist(),
    "a map's function": lambda: DF.amr.map(numbers, finding={"n": int})["n"].tolist(),
    "a reduce's function": lambda: [DF.assign(m=1).amr.reduce(total, columns=["m"]) - 2, 2],
    "a recipe": lambda: amr.Recipe().map("Which?", finding={"n": int})(DF).frame["n"].tolist(),
    "a recipe's function": lambda: amr.Recipe().then(numbers).map(copied, finding={"m": int})(DF).frame["m"].tolist(),
    "a run": lambda: (
        DF.amr.start(map="Which?", finding={"n": int}, reduce={"n": "sum"}).result().findings["n"].tolist()
    ),
}


def copied(frame):
    return [{"m": int(n)} for n in frame["n"]]


@pytest.mark.parametrize("case", REACHED)
def test_settings_of_a_block_reach_all_that_runs_for_a_call(case):
    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm(), max_parallelism=1):
            assert REACHED[case]() == [1, 2]
        assert server.requests
    with pytest.raises(amr.UsageError, match="No model is configured"):
        REACHED[case]()


def test_a_run_keeps_the_settings_that_held_when_it_was_started():
    """Begun in the block, read outside of it, while the process says something else; the same of a recipe."""

    def once_in_two(frame):
        if int(frame["text"].iloc[0].split()[1]) % 2:
            raise ValueError("odd")
        return numbers(frame)

    one_each = {"finding": {"n": int}, "plan": {"shard_size": 1}}
    recipe = amr.Recipe().map(once_in_two, **one_each)
    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm(), errors="raise"):
            run = DF.tail(1).amr.start(map=once_in_two, reduce={"n": "sum"}, **one_each)
            failing = recipe.start(DF)
        amr.configure(errors="coerce", lm=None)
        assert [found["n"] for found in run] == [2]
        assert run.result().output["n"] == 2
        with pytest.raises(amr.MapFailed):
            failing.result()


def test_retry_has_the_settings_of_its_call_and_so_have_the_calls_of_the_user_s_functions():
    told = []

    def asks(frame):
        if not told:
            raise ValueError("not yet")
        return numbers(frame)

    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm(), max_parallelism=1):
            first = DF.amr.map_reduce(map=asks, finding={"n": int}, reduce={"n": "sum"})
        assert len(first.failures) == 2
        told.append("now")
        with amr.settings(max_steps=2):
            again = first.retry()
    assert again.output["n"] == 3


def test_a_plan_that_was_made_in_a_block_is_estimated_with_its_settings():
    with ScriptedServer(provider) as server:
        with amr.settings(lm=server.lm()):
            plan = DF.amr.plan(map="Which?", finding={"n": int}, reduce={"n": "sum"})
        assert plan.requests(1)[0]["model"] == "scripted"
        assert plan.estimate(sample=1).calls is not None

"""The transcript of a row and of a node, as a notebook shows it."""

from typing import Literal

import pandas as pd
import pytest

from pandas_amr.testing import ScriptedServer, findings

HOSTILE = {
    "script": "<script>document.title = 'owned'</script><img src=https://x.invalid/a.png>",
    "escapes": "\x1b[31mred\x1b[0m",
    "turned": "\u202egnirts",
    "arabic": "مرحبا بالعالم",
    "emoji": "naïve 👩‍👩‍👧",
    "wide": "w" * 3_000,
}


@pytest.fixture(scope="module")
def result():
    def answer(request):
        return findings(request, lambda unit: {"level": 9 if "red" in unit["text"] else 1})

    frame = pd.DataFrame({"text": list(HOSTILE.values())}, index=[f"<b>{kind}</b>" for kind in HOSTILE])
    with ScriptedServer(answer) as server:
        options = {"map": "How bad?", "finding": {"level": Literal[1, 2]}, "reduce": len, "lm": server.lm()}
        return frame.amr.map_reduce(**options, journal=False, trace="full", plan={"shard_size": 3})


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_transcript_is_quiet_fits_and_shows_hostile_texts_as_texts(show, look, result, kind):
    page = show(result.look(f"<b>{kind}</b>")._repr_html_(), look)
    assert page.title() != "owned"
    assert page.locator(".amr script, .amr img, .amr b").count() == 0
    assert f"<b>{kind}</b>" in page.locator(".amr h3").inner_text()
    page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true })")
    show.check(page)  # all of it open
    read = "\n".join(page.locator(".amr-step pre").all_inner_texts())
    assert {"script": "<script>document", "escapes": "red", "arabic": "بالعالم", "wide": "wwwwww"}.get(kind, "") in read


def test_a_long_name_of_a_field_leaves_room_for_its_value(show, look):
    name = "number_" + "x" * 100
    frame = pd.DataFrame({"text": ["a"]})
    with ScriptedServer(lambda request: findings(request, lambda unit: {name: 7})) as server:
        result = frame.amr.map_reduce(map="?", finding={name: int}, reduce=len, lm=server.lm(), journal=False)
    page = show(result.look(0)._repr_html_(), look)
    value = page.locator(".amr-facts dd").nth(1)
    assert value.inner_text() == "7"
    assert value.bounding_box()["width"] > 100


@pytest.mark.filterwarnings("ignore::pandas_amr.FailureWarning")
def test_steps_stand_in_order_and_what_was_not_accepted_is_marked(show, result):
    page = show(result.look("<b>escapes</b>")._repr_html_())
    purposes = page.locator(".amr-purpose").all_inner_texts()
    assert purposes[0].startswith("Asked about 3 rows: ")
    assert purposes[1].startswith("Repair of row ")
    speakers = page.locator(".amr-who").all_inner_texts()
    assert speakers[:5] == ["instructions", "to the agent", "agent", "to the agent", "agent"]
    assert page.locator("p.amr-bad").first.inner_text().endswith("level: Input should be 1 or 2")
    folded = page.locator("details").first
    assert not folded.locator("pre").is_visible()
    folded.locator("summary").click()
    assert "How bad?" in folded.locator("pre").inner_text()

"""The graph and the timeline as pictures: in a page, and as the image that a notebook makes of them."""

import base64

import pytest
from tests.result.test_graph_and_timeline import made_tree, many

import pandas_amr as amr

PICTURES = {
    "a graph": (made_tree(10, 3, failed=frozenset({3})), ["map-1", "failed, 4 s", "final-reduce", "took longest"]),
    "a graph of 10,000 nodes": (made_tree(10_000, 10, failed=frozenset({40, 400})), ["map-40", "and 9,994 more"]),
    "a timeline": (many(20, 4), ["map-0", "in the model 10 s", "waiting for a rate limit 4 s"]),
    "a timeline of 10,000 nodes": (many(10_000, 32), ["32 at once", "Longest waits:"]),
}
BOXES = """() => [...document.querySelectorAll('svg text')].map(text => {
    const own = text.getBoundingClientRect(), svg = text.closest('svg[role=img]').getBoundingClientRect();
    return [text.textContent, own.left - svg.left, svg.right - own.right, own.top - svg.top, svg.bottom - own.bottom];
})"""


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_shows_its_texts_within_its_frame(show, look, name):
    picture, texts = PICTURES[name]
    drawing = picture._repr_mimebundle_()["image/svg+xml"]
    page = show(f"<div style='overflow-x: auto'>{drawing}</div>", look)
    places = page.evaluate(BOXES)
    shown = [text for text, *_ in places]
    assert set(texts) <= set(shown)
    for text, *distances in places:
        assert min(distances) >= -1, text
    assert page.locator("svg title").first.text_content()


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_an_image_of_a_size_of_its_own(show, look, name):
    drawing = PICTURES[name][0].to_svg()
    data = base64.b64encode(drawing.encode()).decode()
    page = show(f"<img style='max-width: 100%' src='data:image/svg+xml;base64,{data}'>", look)
    width, height = page.evaluate(
        "async () => { const img = document.images[0]; await img.decode(); return [img.naturalWidth, img.naturalHeight] }"
    )
    assert 300 < width <= 1000
    assert 100 < height <= 2_000


def test_a_name_that_is_markup_runs_nothing_and_is_read(show, look):
    name = "<img src=x onerror=alert(1)><script>throw 1</script>"
    frame = amr.as_frame([{"text": "a"}])
    result = frame.amr.map_reduce(map={name: lambda shard: [{"n": 1}] * len(shard)}, reduce={name: "sum"})
    drawings = result.graph().to_svg() + result.timeline().to_svg()
    page = show(f"<div style='overflow-x: auto'>{drawings}</div>", look)
    assert f"map-{name}-1" in page.locator("svg title").all_text_contents()[0]
    assert page.locator("svg script, svg img").count() == 0

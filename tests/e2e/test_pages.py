"""The pages in a real headless Chromium, network off: they render, filter, take votes, and run nothing foreign."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
from run_copies import HOSTILE, RunCopies, repeat_experiment, write_report
from snaketune.files import write_json
from snaketune.report import collect, human_eval, page, run_comparison
from tools import CHROMIUM
from unit.evaluate.test_bake_off import compared, method

pytestmark = [
    pytest.mark.e2e,
    CHROMIUM.needed,
]

PAGES = ("report/index.html", "report/human_eval.html", "pilot/index.html")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def run(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _reported(run_copies.make(tmp_path_factory.mktemp("results") / "jessy-v1", rows=45))


@pytest.fixture(scope="module")
def hostile(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _reported(run_copies.make(tmp_path_factory.mktemp("results") / "odd", rows=8, hostile=True))


@pytest.fixture(scope="module")
def contest(run_copies: RunCopies, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = run_copies.make(tmp_path_factory.mktemp("results") / "contest", rows=12)
    methods = [method("slow", 0.9, 0.5, 1), method("quick", 0.7, 0.9, 2, 3), method("n" * 60, 0.5, 1.2, 4)]
    write_json(run / "evaluation/experiments.json", compared(*methods))
    for name, seconds in (("slow", 80), ("quick", 8), ("n" * 60, 40)):
        timing = {"seconds": seconds, "cpu_seconds": 2 * seconds, "tokens_per_second": 9, "peak_memory_bytes": 1}
        write_json(
            run / f"train/{name}/timing.json", timing | {"peak_resident_bytes": 10**7 * seconds, "resumed_from": 0}
        )
    return _reported(run)


def _reported(run: Path) -> Path:
    write_report(run)
    page.pilot(folder=run, page=run / "pilot/index.html", base="tiny-base")
    return run


def _open(driver: Any, path: Path, width: int = 1280, scheme: str = "light", media: str = "screen") -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})
    driver.get_log("browser")
    driver.get_log("performance")
    driver.get(path.as_uri())


def _complaints(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def _requests(driver: Any) -> list[str]:
    messages = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [it["params"]["request"]["url"] for it in messages if it["method"] == "Network.requestWillBeSent"]


def _shown(driver: Any) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#rows > article')].filter(it => !it.hidden).map(it => it.dataset.id)"
    )


def _choose(driver: Any, field: str, value: str) -> None:
    driver.execute_script(
        "const it = document.getElementById(arguments[0]); it.value = arguments[1];"
        "it.dispatchEvent(new Event('input', {bubbles: true}));",
        field,
        value,
    )


def _keys(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def _click(driver: Any, field: str) -> None:
    button = driver.find_element("id", field)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", button)
    button.click()


def _exported(driver: Any) -> Path:
    """The votes file that was just saved, once it is written."""
    return browser.until(lambda: [path for path in driver.downloads.glob("votes-*.json") if path.stat().st_size])[0]


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("kind", ["run", "hostile"])
def test_a_page_loads_nothing_but_itself_and_complains_of_nothing(
    chromium: Any, name: str, kind: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(kind) / name
    _open(chromium, path)
    assert chromium.execute_script("return document.querySelector('h1').textContent.length") > 10
    assert [url for url in _requests(chromium) if not url.startswith("data:")] == [path.as_uri()]
    assert _complaints(chromium) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_bake_off_is_one_picture_and_one_table_that_fit_the_page(
    chromium: Any, contest: Path, width: int, scheme: str
) -> None:
    path = contest / "report/index.html"
    _open(chromium, path, width, scheme)
    assert _complaints(chromium) == []
    assert [url for url in _requests(chromium) if not url.startswith("data:")] == [path.as_uri()]
    found = chromium.execute_script(
        "const it = document.getElementById('bake-off'), svg = it.querySelectorAll('svg'),"
        " box = svg[0].getBoundingClientRect(), texts = [...svg[0].querySelectorAll('text')].map(t => t.textContent);"
        "const named = texts.filter(t => /^[0-9] [a-z]/.test(t)).length;"
        "return [svg.length, box.width > 200 && box.right <= innerWidth, named,"
        " it.querySelectorAll('tbody tr').length, document.documentElement.scrollWidth <= innerWidth,"
        " [...it.querySelectorAll('tr.front th bdi')].map(t => t.textContent)]"
    )
    assert found == [1, True, 3, 4, True, ["base model", "slow", "quick"]]
    assert chromium.find_element("css selector", "nav a[href='#bake-off']").text == "Bake-off"


def test_search_order_and_filters_show_the_right_answers(chromium: Any, run: Path) -> None:
    found = collect.collect(run).evaluation.answers.rows
    change = {row.id: row.change for row in found}
    _open(chromium, run / "report/index.html")
    assert len(_shown(chromium)) == 20
    worsened = [change[row] for row in _shown(chromium)]
    assert worsened == sorted(change.values())[:20]
    _choose(chromium, "order", "improved")
    assert [change[row] for row in _shown(chromium)] == sorted(change.values(), reverse=True)[:20]
    _click(chromium, "more")
    assert len(_shown(chromium)) == 40
    _choose(chromium, "kind", "worsened")
    assert set(_shown(chromium)) == {row for row in change if change[row] < 0}
    _choose(chromium, "kind", "")
    _choose(chromium, "category", "long")
    assert set(_shown(chromium)) <= {row.id for row in found if row.category == "long"}
    _choose(chromium, "category", "")
    _choose(chromium, "search", found[7].prompt.upper())
    assert _shown(chromium) == [found[7].id]
    assert "1 of 1 shown" in chromium.find_element("id", "count").text
    _choose(chromium, "search", "words that nobody wrote")
    assert _shown(chromium) == []


def test_hostile_text_of_data_and_answers_stays_text(chromium: Any, hostile: Path) -> None:
    _open(chromium, hostile / "report/index.html")
    _choose(chromium, "order", "given")
    assert chromium.title == "odd: report"
    assert chromium.execute_script("return document.images.length") == 0
    assert chromium.execute_script("return document.scripts.length") == 1
    said = chromium.execute_script("return document.querySelector('#rows .tuned .said').textContent")
    visible = HOSTILE.replace("\x00", "\u2400").replace("\x07", "\u2407")
    assert visible in said
    _open(chromium, hostile / "report/human_eval.html")
    shown = chromium.execute_script("return document.getElementById('question').textContent")
    assert "</style></script><img" in shown
    assert "{{ 7*7 }}" in shown
    assert chromium.title == "odd: judge the answers"
    assert chromium.execute_script("return document.images.length") == 0


def test_right_to_left_marks_turn_no_text_around_them(chromium: Any, hostile: Path) -> None:
    _open(chromium, hostile / "report/index.html")
    isolated = chromium.execute_script(
        "return [...document.querySelectorAll('.said, bdi')].every("
        "it => /isolate|plaintext/.test(getComputedStyle(it).unicodeBidi))"
    )
    assert isolated


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("kind", ["run", "hostile"])
def test_nothing_is_cut_off_on_a_phone(chromium: Any, name: str, kind: str, request: pytest.FixtureRequest) -> None:
    _open(chromium, request.getfixturevalue(kind) / name, width=360)
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360


BROKEN_WORDS = """
const broken = [], range = document.createRange();
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode;
  if (!node.parentElement.closest('table') || !node.parentElement.getClientRects().length) continue;
  for (const word of node.textContent.matchAll(/\\S+/g)) {
    if (!/^[A-Za-z]{2,16}$/.test(word[0])) continue;  // names and digests may be broken
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    if (range.getClientRects().length > 1) broken.push(word[0]);
  }
}
return broken;
"""


@pytest.mark.parametrize("name", ["report/index.html", "pilot/index.html"])
@pytest.mark.parametrize("width", [390, 1280])
def test_tables_scroll_rather_than_break_a_word_in_the_middle(
    chromium: Any, run_copies: RunCopies, tmp_path: Path, name: str, width: int
) -> None:
    run = run_copies.make(tmp_path / "kochen-v2", rows=20)
    repeat_experiment(run, [f"rank-{rank}_learning_rate-{rate}" for rank in (8, 16) for rate in (0.0005, 0.002)])
    _open(chromium, _reported(run) / name, width=width)
    assert chromium.execute_script(BROKEN_WORDS) == []
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= width


CONTRAST = """
const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
const parse = c => c.match(/[\\d.]+/g).map(Number);
const light = c => { const [r, g, b] = parse(c).map(channel); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const clear = c => { const p = parse(c); return p.length === 4 && p[3] === 0; };
const ground = it => { while (it && clear(getComputedStyle(it).backgroundColor)) it = it.parentElement;
  return getComputedStyle(it || document.body).backgroundColor; };
const low = [];
for (const it of document.querySelectorAll('body *')) {
  const own = [...it.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || !it.getClientRects().length || it.closest('svg')) continue;
  const a = light(getComputedStyle(it).color), b = light(ground(it));
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) low.push(it.tagName + '.' + it.className + ' ' + ratio.toFixed(2));
}
return low;
"""


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks_for(chromium: Any, run: Path, name: str, scheme: str) -> None:
    _open(chromium, run / name, scheme=scheme)
    dark = chromium.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 26)"
    assert dark == (scheme == "dark")
    assert chromium.execute_script(CONTRAST) == []


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_finds_headings_in_order_and_a_name_for_everything(chromium: Any, run: Path, name: str) -> None:
    _open(chromium, run / name)
    nodes = chromium.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    nodes = [node for node in nodes if not node.get("ignored")]
    role = [(node["role"]["value"], (node.get("name") or {}).get("value", "")) for node in nodes]
    asked = ("button", "link", "textbox", "searchbox", "combobox", "img", "image", "region", "table", "progressbar")
    named = [it for it in role if it[0] in asked]
    assert len(named) > 5
    assert [it for it in named if not it[1] and it[0] != "table"] == []
    browser.check_headings_and_ids(chromium)


def test_the_page_prints_without_its_controls(chromium: Any, run: Path) -> None:
    import base64

    _open(chromium, run / "report/index.html", media="print")
    for control in ("nav.contents", "#filters", "button.copy"):
        hidden = f"return getComputedStyle(document.querySelector('{control}')).display === 'none'"
        assert chromium.execute_script(hidden)
    pdf = base64.b64decode(chromium.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")


def test_a_vote_is_cast_by_keyboard_kept_exported_and_read_back(chromium: Any, run: Path) -> None:
    form = human_eval.form(collect.collect(run))
    tuned = {item.id: item.left if _tuned_is_left(form, item) else item.right for item in form.items}
    by_question = {item.question: item.id for item in form.items}
    _open(chromium, run / "report/human_eval.html")
    visible = chromium.execute_script("return document.body.innerText")
    for secret in ("base", "tuned", "gguf", "adapter"):
        assert secret not in visible.lower().replace("tuned from", "")

    chromium.find_element("id", "rater").send_keys("Ada", "\ue00c")
    arrows = {"left": "\ue012", "right": "\ue014", "tie": "\ue015"}
    wanted = {}
    for number in range(6):
        asked = chromium.execute_script("return document.getElementById('question').textContent")
        cards = chromium.execute_script(
            "return [...document.querySelectorAll('#answers .said')].map(it => it.textContent)"
        )
        item = by_question[asked]
        left_is_tuned = cards[0] == tuned[item]
        side = "tie" if number == 5 else "left" if left_is_tuned else "right"
        wanted[item] = "tie" if number == 5 else "tuned"
        _keys(chromium, arrows[side])
    chromium.refresh()
    assert "6 judged" in chromium.find_element("id", "progress-text").text
    assert chromium.find_element("id", "rater").get_attribute("value") == "Ada"
    _keys(chromium, "s")
    exported = _exported(chromium)
    assert exported.name == "votes-jessy-v1-Ada.json"
    found = human_eval.aggregate_votes([exported], form, seed=1)
    assert found.refused == []
    assert found.raters == ["Ada"]
    assert found.preference.tuned == 5
    assert found.preference.ties == 1
    assert _complaints(chromium) == []

    (run / "votes").mkdir(exist_ok=True)
    (run / "votes" / exported.name).write_bytes(exported.read_bytes())
    html = page.render(collect.collect(run), collect.measurements(run))
    assert "What people preferred" in html


def _tuned_is_left(form: dict[str, Any], item: dict[str, Any]) -> bool:
    return human_eval.tuned_is_left(form.fingerprint, item.id)


def test_answers_are_rated_by_keyboard_with_a_comment(chromium: Any, run: Path) -> None:
    form = human_eval.form(collect.collect(run))
    for old in chromium.downloads.glob("*.json"):
        old.unlink()
    _open(chromium, run / "report/human_eval.html")
    _click(chromium, "mode-rate")
    chromium.find_element("id", "comment").send_keys("well said 1 2 3", "\ue00c")
    _keys(chromium, *"54321", *"555")
    assert "1 judged" in chromium.find_element("id", "progress-text").text
    _click(chromium, "export")
    exported = _exported(chromium)
    ratings = json.loads(exported.read_text())["ratings"]
    assert len(ratings) == 1
    assert [ratings[0][name] for name in human_eval.CRITERIA] == [5, 4, 3, 2, 1]
    assert ratings[0]["comment"] == "well said 1 2 3"
    assert human_eval.aggregate_votes([exported], form, seed=1).ratings["overall"].questions == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_two_runs_with_different_data_are_compared_on_a_page_that_opens_offline(
    chromium: Any, run: Path, run_copies: RunCopies, tmp_path: Path, scheme: str
) -> None:
    other = _reported(run_copies.make(tmp_path / "jessy-v2", rows=45, first_row=15, gain=0.3, hostile=True))
    run_comparison.run(
        folders=[run, other],
        page_file=tmp_path / "runs.html",
        record=tmp_path / "runs.json",
        table=tmp_path / "runs.csv",
        seed=1,
    )
    _open(chromium, tmp_path / "runs.html", scheme=scheme, width=360)
    assert "jessy-v2" in chromium.execute_script("return document.querySelector('h1').textContent")
    assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
    assert chromium.execute_script(CONTRAST) == []
    assert [url for url in _requests(chromium) if not url.startswith("data:")] == [(tmp_path / "runs.html").as_uri()]
    assert _complaints(chromium) == []

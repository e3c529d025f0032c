"""The documentation names only what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sized_chain import rules_without_training

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ {4})make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert named <= targets


def test_every_rule_file_names_its_rules_and_every_rule_its_script() -> None:
    rules = {}
    for path in sorted((ROOT / "rules").glob("*.smk")):
        text = path.read_text(encoding="utf-8")
        for name, body in re.findall(r"^rule (\w+):\n(.*?)(?=^rule |\Z)", text, re.MULTILINE | re.DOTALL):
            if "script:" in body:
                for helper in ("scripts", "logs", "code"):
                    assert f'{helper}("{name}' in body, f"{name} names another step in {helper}()"
                assert not (benchmark := re.search(r'benchmarks\("(\w+)', body)) or benchmark[1] == name
                assert name in text[: text.index("\n\n")], f"{path.name} does not announce {name}"
                rules[name] = path
            assert re.match(r'    """.+\.(?: .+)?"""\n', body), (
                f"{name} has no docstring, which `snakemake --list` shows"
            )
    assert set(rules) == {path.stem for path in (ROOT / "scripts").glob("*.py")}


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_every_script_says_in_its_first_line_which_module_does_its_work(script: Path) -> None:
    first = script.read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r'"""[A-Z].+[(:;] ?(snaketune(?:\.\w+)+)\)?\."""', first)
    assert named, "the first line is no sentence that ends with a module of the library"
    path = ROOT / "scripts" / named[1].replace(".", "/")
    assert path.is_dir() or path.with_suffix(".py").is_file()


def test_every_caption_is_shown_by_snakemakes_report_and_every_shown_file_has_one() -> None:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk"))
    shown = re.findall(r'caption="../report/captions/(\w+)\.rst"', rules)
    assert rules.count("=report(") == len(shown)
    assert sorted(shown) == sorted(path.stem for path in (ROOT / "report/captions").iterdir())


def test_no_rule_file_reads_a_rule_of_a_file_that_is_included_after_it() -> None:
    order = re.findall(r'^include: "(rules/\w+\.smk)"', (ROOT / "Snakefile").read_text(encoding="utf-8"), re.MULTILINE)
    known: set[str] = set()
    for name in order:
        text = (ROOT / name).read_text(encoding="utf-8")
        known |= set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
        assert set(re.findall(r"\brules\.(\w+)\.", text)) <= known, name
    assert sorted(order) == sorted(f"rules/{path.name}" for path in (ROOT / "rules").glob("*.smk"))


def test_each_rule_file_says_which_rules_of_other_files_it_reads() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "rules").glob("*.smk")}
    for path, text in texts.items():
        own = set(re.findall(r"^rule (\w+):", text, re.MULTILINE))
        others = set(re.findall(r"\brules\.(\w+)\.", text)) - own
        head = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        unsaid = (
            {name for name in others if f"rules.{name}" not in head} if "rules of all stages" not in head else set()
        )
        assert not unsaid, f"{path.name} reads {sorted(unsaid)}, which its header does not say"


def test_table_of_presets_is_what_the_plan_says_today() -> None:
    code = "import sys; sys.path[:0] = ['benchmarks/plan']; import presets; print(presets.table())"
    paths = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=paths, capture_output=True, text=True, check=True)
    assert made.stdout in (ROOT / "docs/presets.md").read_text(encoding="utf-8"), "run make docs"


def test_the_command_that_packages_an_adapter_from_elsewhere_allows_every_rule_of_packaging() -> None:
    rules = re.findall(r"^rule (\w+):", (ROOT / "rules" / "package.smk").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(rules) <= set(rules_without_training())

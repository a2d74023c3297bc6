"""The documents name nothing that does not exist, and what is generated is as generated."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from receipted.cli.exits import EXIT_CODES, Exit
from receipted.metrics.catalogue import METRICS
from receipted.settings.load import Settings, parse
from receipted.settings.models import AccountSettings, TracingSettings, WebhookKey
from receipted.wiring import PROVIDERS
from statemachine.phases import Alarm, Effect, Outcome, Phase, Review, Source
from storage.schema import metadata
from storage.types import InboxStatus, OutboxStatus
from tests.conftest import MORE
from tests.repo import generate
from tests.repo.commands_in_docs import blocks, inline, problem, shell_lines
from tests.repo.log_events import events
from tests.repo.tree import ROOT, documents, files, makefile_targets, name, procfile

DOCS = documents()
README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"
GLOSSARY = ROOT / "docs" / "glossary.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
SETTINGS = ROOT / "docs" / "settings.md"
YOUR_SHOP = ROOT / "docs" / "your-shop.md"
WALK = ROOT / "docs" / "walkthrough.md"
PICTURE = ROOT / "docs" / "payment-page.png"

#: Made while a document is followed, by the reader or by the program.
_MADE = {"receipted.toml", "walk.toml", "history.jsonl", "backup.db", "receipted.db-wal", "receipted.db-shm"}
_FILE = re.compile(r"[\w./-]+\.(py|md|toml|txt|cfg|yml|json)|[\w.-]+(/[\w.-]+)*/")
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#]+)(?:#[^)]*)?\)")
_SECTION = re.compile(r"(service|log|poller|reconciliation|worker|metrics|fulfilment)\.(\w+)")
_VARIABLE = re.compile(r"RECEIPTED_(\w+?)__(\w+)(=.*)?")


def code_of(pattern):
    """Every piece of inline code that is a match, with its document."""
    return [(path, found) for path in DOCS for text in inline(path) if (found := pattern.fullmatch(text))]


# commands


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_command_to_type_exists(path):
    wrong = []
    for line in shell_lines(path):
        program = shlex.split(line)[0]
        if program == "receipted":
            wrong += [f"{line}: {found}" for found in [problem(line, is_whole=True)] if found]
        elif program == "make":
            wrong += [f"{line}: no such target" for target in line.split()[1:] if target not in makefile_targets()]
        elif program not in ("sqlite3", "source", "umask"):
            wrong.append(f"{line}: not a command of ours")

    assert wrong == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_command_in_a_sentence_exists(path):
    ours = [text for text in inline(path) if text.split()[0] in ("receipted", "make") and text.isprintable()]
    wrong = [
        f"{text}: {found}" for text in ours if text.startswith("receipted") if (found := problem(text, is_whole=False))
    ]
    wrong += [text for text in ours if text.startswith("make ") if not {*text.split()[1:]} <= {*makefile_targets()}]

    assert wrong == []


@pytest.mark.parametrize(
    "line",
    [
        "receipted payment list",
        "receipted payments",
        "receipted payments show",
        "receipted payments list --nothing",
        "receipted payments resolve 5b0c2f7e91aa --state paid",
        "receipted migrate now",
    ],
)
def test_a_command_that_does_not_work_is_found(line):
    assert problem(line, is_whole=True)


def test_every_module_to_run_exists():
    named = [found[1] for _, found in code_of(re.compile(r"python -m ([\w.]+).*"))]

    assert named
    assert [module for module in named if importlib.util.find_spec(module) is None] == []


def test_every_makefile_target_is_told():
    assert [target for target in makefile_targets() if f"`make {target}`" not in CONTRIBUTING.read_text()] == []


def test_make_help_prints_every_target():
    assert [target for target, told in makefile_targets().items() if not told] == []


def test_ci_calls_targets_alone():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    calls = [line.split() for line in lines if line and not line.startswith(("#", "set ", "cd "))]

    assert [call[0] for call in calls] == ["make"] * len(calls)
    assert {target for call in calls for target in call[1:]} <= set(makefile_targets())


def test_ci_runs_both_parts_of_the_tests():
    """Each module of the second part is there, and no test is in neither part."""
    called = (ROOT / ".ci" / "run").read_text().split()
    recipes = (ROOT / "Makefile").read_text()
    recipe = re.compile(r"^(test|test-more):.*\n.* -m \"(.*)\"$", re.MULTILINE)
    chosen = dict(recipe.findall(recipes))

    assert {"test", "test-more"} <= set(called)
    assert [module for module in MORE if not (ROOT / "tests" / module).is_file()] == []
    assert chosen["test"] == f"not {chosen['test-more']}"


def test_the_procfile_starts_what_exists():
    assert set(procfile()) == {"release", "web", "worker"}
    assert [wrong for command in procfile().values() if (wrong := problem(command, is_whole=True))] == []


def test_the_exit_codes_are_told():
    assert [code.value for code in Exit if not re.search(rf"^  {code.value}\s", EXIT_CODES, re.MULTILINE)] == []


# files and links


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_link_leads_somewhere(path):
    links = _LINK.findall(path.read_text())

    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCS, ids=name)
def test_every_file_that_is_named_exists(path):
    known = {name(file) for file in files()}
    last = {Path(file).name for file in known}
    wrong = [
        text
        for text in inline(path)
        if _FILE.fullmatch(text) and text not in _MADE and not text.startswith(("var/", "/"))
        if not (ROOT / text).exists() and not (path.parent / text).exists() and text not in last
    ]

    assert wrong == []


def test_every_document_is_reached_from_the_readme():
    pages = {name(path) for path in DOCS if name(path).startswith("docs/") and "/adr/" not in name(path)}

    assert pages <= set(_LINK.findall(README.read_text()))


def test_every_decision_is_listed_and_whole():
    folder = ROOT / "docs" / "adr"
    pages = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    numbers = [int(path.name[:4]) for path in pages]

    assert numbers == sorted(set(numbers))  # each once; a number that is taken for a decision to come leaves a gap
    assert [path.name for path in pages if f"({path.name})" not in (folder / "README.md").read_text()] == []
    for path in pages:
        text = path.read_text()
        assert [part for part in ("Status: ", "## Context", "## Decision", "## Consequences") if part not in text] == []


def test_every_decision_that_the_code_names_exists():
    named = {
        found
        for path in files()
        if path.suffix == ".py"
        for found in re.findall(r"ADR (\d{4})", path.read_text(encoding="utf-8"))
    }

    assert [number for number in sorted(named) if not list((ROOT / "docs" / "adr").glob(f"{number}-*.md"))] == []


def test_prose_has_one_sentence_a_line():
    wrong = []
    for path in DOCS:
        fenced = False
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            fenced ^= line.startswith("```")
            is_prose = not fenced and re.match(r"\w|- | {2,3}\w", line) and "|" not in line
            if is_prose and re.search(r"[a-z`)]\. [A-Z]", line):
                wrong.append(f"{name(path)}:{number}")

    assert wrong == []


# the readme


def test_the_readme_is_short_and_its_picture_light():
    assert len(README.read_text().splitlines()) <= 150
    assert PICTURE.stat().st_size <= 150 * 1024


def test_the_figures_of_the_readme_are_measured():
    """What `make bench` measured anew, or the demonstration counted, is to be written there too."""
    told, measured = README.read_text(), (ROOT / "docs" / "performance.md").read_text()
    rates = [
        re.search(rf"^\| {server}, PostgreSQL \| 64 \| ([\d,]+) ", measured, re.MULTILINE)[1]
        for server in ("receipted", "naive")
    ]
    (demo,) = re.findall(r"^The providers: (.+)\.$", WALK.read_text(), re.MULTILINE)
    faults = {word: count for count, word in (each.split() for each in demo.split(", "))}
    counted = [
        f"{faults['lost']} webhooks are lost",
        f"{faults['duplicated']} come twice",
        f"{faults['delayed']} late",
        f"{faults['forged']} are forged",
        f"{faults['corrupted']} corrupted",
    ]

    assert [rate for rate in rates if rate not in told] == []
    assert [words for words in counted if words not in told] == []


# settings


def test_every_setting_that_is_named_exists():
    sections = {section: field.annotation for section, field in Settings.model_fields.items()}
    wrong = [
        f"{name(path)}: {found[0]}"
        for path, found in code_of(_SECTION)
        if found[2] not in _fields(sections[found[1]]) and found[0] not in events() and found[2] not in ("py", "db")
    ]

    assert wrong == []


def test_every_variable_that_is_named_overrides_a_setting():
    sections = {section: field.annotation for section, field in Settings.model_fields.items()}
    named = code_of(_VARIABLE)

    assert named
    assert [found[0] for _, found in named if found[2].lower() not in _fields(sections[found[1].lower()])] == []


def test_every_span_that_is_named_is_a_setting():
    every = {*_fields(AccountSettings), *(f for s in Settings.model_fields.values() for f in _fields(s.annotation))}
    named = {found[1] for _, found in code_of(re.compile(r"(?:\w+\.)?(\w+_seconds)"))}
    sandbox = {word for word in named if word in (ROOT / "sandbox" / "config.py").read_text()}

    metrics = {metric.name for metric in METRICS}

    assert named - every - sandbox - metrics == set()


def _fields(model) -> set[str]:
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()


def test_the_settings_of_the_walk_can_work():
    (walk,) = blocks(WALK, "toml")
    found = parse(tomllib.loads(walk))

    assert found.sinks[0].name == "shop"


def test_the_settings_of_the_operations_page_exist():
    tables = [tomllib.loads(text) for text in blocks(OPERATIONS, "toml")]
    keys = [key for table in tables if "accounts" in table for key in table["accounts"]["shop"]["webhook_keys"]]
    (tracing,) = (table["tracing"] for table in tables if "tracing" in table)

    assert keys
    assert {setting for key in keys for setting in key} <= set(WebhookKey.model_fields)
    assert set(tracing) <= set(TracingSettings.model_fields)


# words


def test_the_glossary_has_the_words_of_the_tables():
    text = GLOSSARY.read_text().lower()
    words = {word for table in metadata.tables if table != "alembic_version" for word in table.split("_")}

    assert [word for word in sorted(words) if word not in text] == []


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("status", {*InboxStatus, *OutboxStatus}),
        ("phase", {*Phase}),
        ("decision", {*Outcome}),
        ("source", {*Source}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_glossary_has_the_values_of_a_word(word, values):
    (row,) = (line for line in GLOSSARY.read_text().splitlines() if line.startswith(f"| {word} |"))

    assert [value.value for value in values if value.value not in row] == []


def test_columns_are_named_by_what_they_hold():
    instants = {"capture_by", "as_of", "state_as_of", "provider_time", "at", "paused_until", "since", "until"}
    for table in metadata.tables.values():
        for column in table.columns:
            is_instant = type(column.type).__name__ == "UtcDateTime"
            assert is_instant == (column.name.endswith("_at") or column.name in instants), f"{table.name}.{column.name}"
            assert (type(column.type).__name__ == "BigInteger") == column.name.endswith("_minor")


def test_every_review_is_told_what_to_do_about():
    assert [review.value for review in Review if f"`{review.value}`" not in OPERATIONS.read_text()] == []


def test_every_effect_is_told():
    effects = [*(effect.value for effect in Effect), *(alarm.effect for alarm in Alarm)]

    assert [effect for effect in effects if f"`{effect}`" not in YOUR_SHOP.read_text()] == []


def test_every_provider_is_told_how_to_register():
    titles = {getattr(kind, "title", name.title()) for name, kind in PROVIDERS.items()}

    assert [title for title in titles if f"**{title}**" not in SETTINGS.read_text()] == []


def test_the_log_events_are_those_of_the_code():
    rows = re.findall(r"^\| `([a-z]+\.[a-z_]+)` \| ([\w ]+) \|", OPERATIONS.read_text(), re.MULTILINE)

    assert dict(rows) == events()


#: Where faults are put in words; storage/unreadable_rows.py has those of rows that cannot be read.
_AUDITS = (
    *("audit/verify.py", "audit/row_checks.py", "audit/retention.py", "audit/replay.py", "audit/table_checks.py"),
    *("audit/seals.py", "storage/unreadable_rows.py"),
)


def test_what_the_audit_says_is_explained():
    text = OPERATIONS.read_text()
    rows = text[text.index("| A fault says |") :].partition("\n\n")[0].splitlines()[2:]
    code = "".join((ROOT / name).read_text() for name in _AUDITS)
    parts = [part.strip(" .") for row in rows for part in re.split(r"\.\.\.|, ", row.split("|")[1])]

    assert len(rows) > 10
    assert [part for part in parts if part and part not in code] == []


# generated


def test_the_providers_page_is_as_generated():
    assert generate.PROVIDERS_PAGE.read_text() == generate.providers_page(), "run python -m tests.repo.generate"


def test_the_lifecycles_page_is_as_generated():
    assert generate.LIFECYCLES.read_text() == generate.lifecycles_page(), "run python -m tests.repo.generate"


def test_the_errors_page_is_as_generated():
    present = generate.ERRORS.read_text()

    assert present == generate.tabled(present), "run python -m tests.repo.generate"
    assert [error.__name__ for error in generate.service_errors() if f"| `{error.__name__}` |" not in present] == []


def test_the_page_for_shops_and_the_schema_of_effects_are_as_generated():
    present = generate.YOUR_SHOP.read_text()

    assert present == generate.tabled(present), "run python -m tests.repo.generate"
    assert generate.EFFECTS.read_text() == generate.effects_schema(), "run python -m tests.repo.generate"


def test_the_changelog_begins_with_what_is_unreleased():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]

    assert headings[0] == "## Unreleased"

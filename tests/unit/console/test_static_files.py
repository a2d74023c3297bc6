"""The console's styles and scripts as files: what no browser is needed to see."""

import re

from tests.repo.tree import ROOT

CONSOLE = ROOT / "console"
SCRIPTS = {path.name: path.read_text() for path in (CONSOLE / "static").glob("*.js")}
TEMPLATES = {str(path.relative_to(CONSOLE)): path.read_text() for path in (CONSOLE / "templates").rglob("*.html")}


def test_hidden_hides_whatever_a_class_says_of_the_display():
    """A class is stronger than the browser's own rule for [hidden], so that one rule for all must be stronger still."""
    style = (CONSOLE / "static" / "console.css").read_text()

    assert re.search(r"^\[hidden\] \{ display: none !important; \}$", style, re.MULTILINE)


def test_every_button_for_scripts_is_of_a_script_that_its_page_loads():
    """A button that no form sends is found by an attribute; whatever page has it loads the script that reads it."""
    hooks = {
        (name, hook)
        for name, text in TEMPLATES.items()
        for button in re.findall(r"<button[^>]*type=\"button\"[^>]*>", text)
        for hook in re.findall(r"data-[\w-]+", button)
    }
    readers = {hook: {name for name, text in SCRIPTS.items() if f"[{hook}]" in text} for _, hook in hooks}

    assert {hook for _, hook in hooks} >= {"data-copy", "data-unfold"}
    for name, hook in hooks:
        users = [
            page for page, text in TEMPLATES.items() if page == name or f'"{name.removeprefix("templates/")}"' in text
        ]
        pages = [page for page in users if "{% extends" in TEMPLATES[page]]
        assert readers[hook], f"{hook} of {name} is read by no script"
        assert pages
        for page in pages:
            blocks = re.search(r"{% block scripts %}(.*?){% endblock %}", TEMPLATES[page], re.DOTALL)
            loaded = blocks[1] if blocks else ""
            uses = page == name or re.search(r"copied\(|copyable\(", TEMPLATES[page])
            assert not uses or any(f"'{script}'" in loaded for script in readers[hook]), (page, hook)
            assert "{% if" not in loaded, f"{page} loads its script sometimes, and has its buttons always"

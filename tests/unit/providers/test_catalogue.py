"""Providers of installed packages, found by the entry point group `receipted.providers`."""

import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from providers.catalogue import PROVIDERS, Stripe, is_built_in, with_pages
from providers.engine.pointers import InvalidPage

PAGE = Stripe.source.text.replace('name = "stripe"', 'name = "acme"', 1)
MODULES = {
    "page as text": "from pathlib import Path\nPROVIDER = str(Path(__file__).parent / 'acme.toml')\n",
    "page as path": "from pathlib import Path\nPROVIDER = Path(__file__).parent / 'acme.toml'\n",
    "class": (
        "from pathlib import Path\nfrom providers.engine import page\nfrom providers.engine.provider import declared\n"
        "PROVIDER = declared(page.read(Path(__file__).parent / 'acme.toml'))\n"
    ),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Install a package with this module, as pip would leave it."""

    def install(module: str) -> Path:
        package, about = tmp_path / "acme_pay", tmp_path / "acme_pay-1.0.dist-info"
        package.mkdir()
        about.mkdir()
        (package / "__init__.py").write_text(module)
        (package / "acme.toml").write_text(PAGE)
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pay\nVersion: 1.0\n")
        (about / "entry_points.txt").write_text("[receipted.providers]\nacme = acme_pay:PROVIDER\n")
        monkeypatch.syspath_prepend(tmp_path)
        invalidate_caches()
        return package

    yield install
    sys.modules.pop("acme_pay", None)


@pytest.mark.parametrize("form", MODULES)
def test_a_package_brings_a_provider(installed, form):
    """By the path of its page, or by a class; the built-in ones stay."""
    installed(MODULES[form])
    found = with_pages((), Path())
    assert found.keys() - PROVIDERS.keys() == {"acme"}
    assert not is_built_in(found["acme"])
    assert found["acme"].lifecycles["payment_intent"].name == "acme.payment_intent"


def test_a_package_and_a_page_of_one_name_are_refused(installed, tmp_path):
    """Which of them an account means would be a guess."""
    package = installed(MODULES["class"])
    with pytest.raises(InvalidPage, match="there is a provider 'acme' already"):
        with_pages([f"file:{package / 'acme.toml'}"], tmp_path)


@pytest.mark.parametrize("module", ["PROVIDER = 7\n", "PROVIDER = int\n"])
def test_a_package_that_names_no_provider_is_refused(installed, module):
    """The message names the entry point."""
    installed(module)
    with pytest.raises(InvalidPage, match="entry point 'acme' is neither a Provider nor the path"):
        with_pages((), Path())


def test_a_setting_that_is_no_page_is_refused(tmp_path):
    """Nothing is fetched, and a path alone says too little."""
    for entry in ("acme.toml", "https://example.com/acme.toml", ""):
        with pytest.raises(InvalidPage, match="give file: and its path"):
            with_pages([entry], tmp_path)

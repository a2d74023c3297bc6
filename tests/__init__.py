"""Tests; a package, since an SDK installs one of the same name, which would be found first."""

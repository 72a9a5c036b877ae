"""The documents contain the figures that are computed from the code."""

import pytest

from benchmarks.figures import FIGURES, ROOT, Figure, differences


def test_quick_figures_match_the_pages() -> None:
    assert differences(figure for figure in FIGURES if figure.quick) == []


def test_every_figure_occurs_once_in_its_page() -> None:
    for figure in FIGURES:
        assert figure.find((ROOT / figure.page).read_text("utf-8")).group()


def test_a_figure_that_is_missing_from_its_page_is_named() -> None:
    with pytest.raises(LookupError, match=r"README\.md has 0 texts"):
        Figure("README.md", "before", "after", str, quick=True).find("elsewhere")

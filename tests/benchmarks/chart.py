"""The chart of growth: readable on light and on dark pages alike, without scripts."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import pygal
from pygal.style import Style

#: Middle tones, told apart on white and on black, and by those who do not see red and green.
_STYLE: Final = Style(
    background="transparent",
    plot_background="transparent",
    foreground="#808080",
    foreground_strong="#808080",
    foreground_subtle="#80808080",
    guide_stroke_color="#80808060",
    major_guide_stroke_color="#80808060",
    opacity="1",
    colors=("#2f81f7", "#74acfb", "#d97706", "#eda63f"),
    font_family="sans-serif",
    label_font_size=13,
    major_label_font_size=13,
    legend_font_size=13,
    title_font_size=15,
    stroke_width=2.5,
)


def drawn(found: Mapping[str, Sequence[tuple[int, float, float]]]) -> str:
    """An SVG of deliveries and events a second, from each database's (payments, deliveries/s, events/s)."""
    sizes = sorted({payments for points in found.values() for payments, _, _ in points})
    chart = pygal.XY(
        style=_STYLE,
        js=(),
        title="Speed by the number of payments",
        x_title="payments (logarithmic)",
        y_title="a second",
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        show_y_guides=True,
        show_x_guides=False,
        dots_size=4,
        width=860,
        height=460,
        range=(0, max((speed for points in found.values() for point in points for speed in point[1:]), default=1)),
        margin_right=40,
        disable_xml_declaration=True,
        no_prefix=True,
    )
    chart.x_labels = [math.log10(payments) for payments in sizes]
    chart.x_value_formatter = lambda exponent: f"{10**exponent:,.0f}"
    chart.value_formatter = lambda speed: f"{speed:,.0f}"
    for name, points in found.items():
        for what, place in (("deliveries", 1), ("events applied", 2)):
            chart.add(f"{what}, {name}", [(math.log10(point[0]), point[place]) for point in points])
    return re.sub(r"<script.*?</script>|<!--.*?-->", "", chart.render(is_unicode=True), flags=re.DOTALL)

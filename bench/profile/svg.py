"""A timeline as SVG with text, for light and dark pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.profile.timeline import BETWEEN, Step

WIDTH, LEFT, TOP, LINE = 960, 20, 78, 30
BARS = 380
"""Width of the area for bars; the words stand to their right."""

NAMES = {"agent": "agent", "adapter": "adapter", BETWEEN: "between processes"}

_STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 18px; font-weight: 600 } .small { font-size: 12px; fill: #57606a }
  .number { text-anchor: end; font-variant-numeric: tabular-nums }
  .paper { fill: #ffffff } .agent { fill: #0969da } .adapter { fill: #bf3989 }
  .between { fill: #8c959f } .rule { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 } .paper { fill: #0d1117 }
    .agent { fill: #58a6ff } .adapter { fill: #f778ba } .between { fill: #6e7681 }
    .rule { stroke: #30363d }
  }
"""


def picture(title: str, note: str, steps: Sequence[Step], took_us: Sequence[float]) -> str:
    """One line for each step: a bar from when it began to when it ended, its time, and what it
    is.
    """
    whole = sum(took_us)
    height = TOP + LINE * len(steps) + 40
    spoken = "; ".join(
        f"{NAMES[step.where]}: {step.what}, {_us(us)}"
        for step, us in zip(steps, took_us, strict=True)
    )
    rows: list[str] = []
    at = 0.0
    for number, (step, us) in enumerate(zip(steps, took_us, strict=True)):
        y = TOP + LINE * number
        x, width = LEFT + BARS * at / whole, max(2.0, BARS * us / whole)
        rows.append(
            f'<rect class="{step.where}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" '
            f'rx="2"/><text class="number" x="{LEFT + BARS + 80}" y="{y + 14}">{_us(us)}</text>'
            f'<text x="{LEFT + BARS + 96}" y="{y + 14}">{escape(step.what)}</text>'
        )
        at += us
    bottom = TOP + LINE * len(steps)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">
<title>{escape(title)}</title>
<desc>{escape(spoken)}</desc>
<style>{_STYLE}</style>
<rect class="paper" width="{WIDTH}" height="{height}"/>
<text class="title" x="{LEFT}" y="32">{escape(title)}</text>
{_legend()}
{chr(10).join(rows)}
<line class="rule" x1="{LEFT}" x2="{LEFT + BARS + 80}" y1="{bottom}" y2="{bottom}"/>
<text class="number" x="{LEFT + BARS + 80}" y="{bottom + 20}">{_us(whole)}</text>
<text class="small" x="{LEFT + BARS + 96}" y="{bottom + 20}">{escape(note)}</text>
</svg>
"""


def _legend() -> str:
    parts, x = [], LEFT
    for where, name in NAMES.items():
        parts.append(
            f'<rect class="{where}" x="{x}" y="46" width="12" height="12" rx="2"/>'
            f'<text class="small" x="{x + 18}" y="57">{name}</text>'
        )
        x += 100
    return "\n".join(parts)


def _us(microseconds: float) -> str:
    return f"{microseconds:,.0f} µs"

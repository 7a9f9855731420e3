"""docs/architecture.svg: the stages of dvc.yaml and their folders. `python docs/architecture.py` draws it."""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/architecture.svg"
COLUMN, ROW, WIDTH, HEIGHT, MARGIN = 205, 92, 170, 68, 20  # pixels
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#22272e}.name{font-weight:600}"
    ".small{font-size:11px;fill:#4a525c}"
    "rect{fill:#f4f8fb;stroke:#0072b2;stroke-width:1.5}path{fill:none;stroke:#8a939d;stroke-width:1.3}"
)


def folder(path: str) -> str:
    """Return what a path of dvc.yaml is a part of: data/runs of data/runs/${item.dataset}/....

    >>> folder("data/runs/${item.dataset}/${item.model}/default"), folder("data/names.txt")
    ('data/runs', 'data/names.txt')
    """
    return "/".join(path.split("/")[:2])


def edges(stages: dict[str, Any]) -> dict[str, set[str]]:
    """Return by stage the stages whose outputs it reads."""
    outs = {
        name: {folder(out if isinstance(out, str) else next(iter(out))) for out in stage["outs"]}
        for name, stage in stages.items()
    }
    return {
        name: {
            other for other in stages if other != name and outs[other] & {folder(d) for d in stage["deps"]}
        }
        for name, stage in stages.items()
    }


def depths(before: dict[str, set[str]]) -> dict[str, int]:
    """Return by stage how many stages come before it in a row."""

    def depth(name: str) -> int:
        return max((depth(other) + 1 for other in before[name]), default=0)

    return {name: depth(name) for name in before}


def draw(stages: dict[str, Any]) -> str:
    """Return the picture as SVG: a column per depth; in each box what the stage writes, for what it runs."""
    before = edges(stages)
    column, taken, place = depths(before), dict[int, int](), dict[str, tuple[int, int]]()
    rows = max(sum(depth == other for other in column.values()) for depth in column.values())
    for name, depth in column.items():
        at, count = taken.get(depth, 0), sum(depth == other for other in column.values())
        place[name] = (MARGIN + depth * COLUMN, MARGIN + int((at + (rows - count) / 2) * ROW))
        taken[depth] = at + 1
    lines = []
    for name, others in before.items():
        x, y = place[name]
        for other in sorted(others, key=list(stages).index):
            if column[name] - column[other] > 1 and any(other in before[each] for each in others):
                continue  # reached through another stage, too
            (x0, y0), middle = place[other], HEIGHT // 2
            half = (x0 + WIDTH + x) // 2
            lines.append(
                f'<path d="M{x0 + WIDTH},{y0 + middle} C{half},{y0 + middle} {half},{y + middle} '
                f'{x},{y + middle}" marker-end="url(#end)"/>'
            )
    for name, (x, y) in place.items():
        outs = stages[name]["outs"]
        first = folder(outs[0] if isinstance(outs[0], str) else next(iter(outs[0])))
        written = first + (f" and {len(outs) - 1} more" if len(outs) > 1 else "")
        each = ", ".join(stages[name].get("matrix", {}))
        lines += [
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="name" x="{x + 10}" y="{y + 20}">{escape(name)}</text>',
            f'<text class="small" x="{x + 10}" y="{y + 38}">{escape(written)}</text>',
            f'<text class="small" x="{x + 10}" y="{y + 55}">{f"each {each}" if each else "once"}</text>',
        ]
    arrow = '<path d="M0,0 L8,4 L0,8 z" style="fill:#8a939d;stroke:none"/>'
    size = 'viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
    width = 2 * MARGIN + max(column.values()) * COLUMN + WIDTH
    height = 2 * MARGIN + (rows - 1) * ROW + HEIGHT
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>The stages of dvc.yaml</title><style>{STYLE}</style>",
            f'<defs><marker id="end" {size}>{arrow}</marker></defs>',
            f'<rect width="{width}" height="{height}" style="fill:#fff;stroke:none"/>',
            *lines,
            "</svg>\n",
        ]
    )


def picture() -> str:
    """Return the picture of dvc.yaml as it is now."""
    return draw(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)

"""The report as one HTML file: sortable tables, pictures inside, nothing from the network."""

import base64
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt

STYLE = """
:root { color-scheme: light }
body { font: 15px/1.55 system-ui, sans-serif; color: #22272e; background: #fff; max-width: 75rem;
  margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
p { max-width: 52rem } nav a { margin-right: 1.25rem } a { color: #005a94 }
.table { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93em }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #e4e7eb; white-space: nowrap }
th { background: #f4f6f8; position: sticky; top: 0; cursor: pointer }
th[aria-sort=ascending]::after { content: " \\25b2" } th[aria-sort=descending]::after { content: " \\25bc" }
tbody tr:hover { background: #f4f6f8 } p:has(img) { max-width: none }
img { max-width: 100%; height: auto; margin: 1.25rem 0 }
"""
SORT = """
for (const table of document.querySelectorAll('table')) table.tHead.addEventListener('click', event => {
  const head = event.target.closest('th'), column = head.cellIndex, body = table.tBodies[0]
  const down = head.ariaSort ? head.ariaSort === 'ascending' : head.style.textAlign === 'right'
  for (const other of table.tHead.rows[0].cells) other.ariaSort = null
  head.ariaSort = down ? 'descending' : 'ascending'
  const value = row => row.cells[column].textContent.replace(/[,\\u00a0]/g, '').trim()
  const compare = (a, b) => {
    const [x, y] = [parseFloat(a), parseFloat(b)]
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1
    return (isNaN(x) ? a.localeCompare(b) : x - y) * (down ? -1 : 1)
  }
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))))
})
"""


def to_html(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """Return a report's Markdown as a page that needs no other file; a click on a column sorts by it.

    Args:
        markdown: with a first heading, tables, and pictures by their file names.
        pictures: PNG files by name.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    for name, content in pictures.items():
        encoded = base64.b64encode(content).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{encoded}"')
    heads = re.findall(r"<h2>(.*?)</h2>", body)
    for number, head in enumerate(heads):
        body = body.replace(f"<h2>{head}</h2>", f'<h2 id="part-{number}">{head}</h2>', 1)
    links = "".join(f'<a href="#part-{number}">{head}</a>' for number, head in enumerate(heads))
    title = re.search(r"<h1>(.*?)</h1>", body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title[1] if title else 'Report'}</title><style>{STYLE}</style></head>\n<body>\n"
        f"{body.replace('</h1>', f'</h1><nav>{links}</nav>', 1)}<script>{SORT}</script></body></html>\n"
    )

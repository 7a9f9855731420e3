"""The report as one HTML file: sortable tables, pictures inside, nothing from the network."""

import base64
import re
from collections.abc import Mapping

from markdown_it import MarkdownIt

# What is wider than the page scrolls, and shows by a shadow that there is more on that side: two covers move
# with the content, two shadows stay. Pictures and heads are multiplied with them, or they would hide them.
STYLE = """
:root { color-scheme: light }
body { font: 15px/1.55 system-ui, sans-serif; color: #22272e; background: #fff; max-width: 78rem;
  margin: 2rem auto; padding: 0 1.25rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 3rem }
a { color: #005a94 }
nav p { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .4rem 0 } nav a { white-space: nowrap }
nav + p { font-size: 1.2rem; max-width: 60rem; margin: 1.5rem 0 }
.part { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1.25rem 0; align-items: flex-start }
.text { flex: 1 1 min(24rem, 100%); columns: 25rem; column-gap: 2.5rem }
.text p { margin: 0 0 .8rem }
.wide { overflow-x: auto; max-width: 100%; background:
  linear-gradient(to right, #fff 40%, #fff0) 0 0 / 2.5rem 100% local,
  linear-gradient(to left, #fff 40%, #fff0) 100% 0 / 2.5rem 100% local,
  linear-gradient(to right, #0004, #0000) 0 0 / .9rem 100%,
  linear-gradient(to left, #0004, #0000) 100% 0 / .9rem 100%;
  background-repeat: no-repeat }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93em }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e7eb; white-space: nowrap }
th { background: #0000000b; cursor: pointer; text-align: left }
th::after { content: "\\2195"; display: inline-block; width: .9em; text-align: right; color: #6b727c;
  font-weight: normal }
th[aria-sort=ascending]::after { content: "\\25b2"; color: inherit }
th[aria-sort=descending]::after { content: "\\25bc"; color: inherit }
tbody tr:hover { background: #0000000b }
figure { margin: 1.5rem 0 }
img { display: block; width: 100%; min-width: 42rem; height: auto; mix-blend-mode: multiply }
"""
SORT = """
const sort = event => {
  const head = event.target.closest('th')
  if (!head || event.key && event.key !== 'Enter' && event.key !== ' ') return
  event.preventDefault()
  const table = head.closest('table'), column = head.cellIndex, body = table.tBodies[0]
  const down = head.ariaSort === 'none' ? head.style.textAlign === 'right' : head.ariaSort === 'ascending'
  for (const other of table.tHead.rows[0].cells) other.ariaSort = 'none'
  head.ariaSort = down ? 'descending' : 'ascending'
  const value = row => row.cells[column].textContent.replace(/[,\\u00a0]/g, '').trim()
  const compare = (a, b) => {
    const [x, y] = [parseFloat(a), parseFloat(b)]
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1
    return (isNaN(x) ? a.localeCompare(b) : x - y) * (down ? -1 : 1)
  }
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))))
}
for (const table of document.querySelectorAll('table'))
  for (const kind of ['click', 'keydown']) table.tHead.addEventListener(kind, sort)
"""
PART = re.compile(r"(<table>.*?</table>)((?:\n<p>(?!<img).*?</p>)*)", re.DOTALL)  # a table and its words
PICTURE = re.compile(r'<p>(<img src="([^"]+)\.png" alt="([^"]*)" />)</p>')


def to_html(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """Return a report's Markdown as a page that needs no other file; a click on a column sorts by it.

    Args:
        markdown: with a first heading, tables, and pictures by their file names.
        pictures: PNG files by name.
    """
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = PART.sub(r'<div class="part"><div class="wide">\1</div><div class="text">\2</div></div>', body)
    body = re.sub(r"<th(?=[ >])", '<th scope="col" aria-sort="none" tabindex="0"', body)
    heads = re.findall(r"<h2>(.*?)</h2>", body)
    for number, head in enumerate(heads):
        body = body.replace(f"<h2>{head}</h2>", f'<h2 id="part-{number}">{head}</h2>', 1)
    links = [_link(f"part-{number}", head) for number, head in enumerate(heads)]
    figures = [_link(f"figure-{name}", alt) for _, name, alt in PICTURE.findall(body)]
    body = PICTURE.sub(r'<figure class="wide" id="figure-\2">\1</figure>', body)
    for name, content in pictures.items():
        encoded = base64.b64encode(content).decode()
        body = body.replace(f'src="{name}"', f'src="data:image/png;base64,{encoded}"')
    nav = _row("Sections", links) + _row("Pictures", figures)
    title = re.search(r"<h1>(.*?)</h1>", body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title[1] if title else 'Report'}</title><style>{STYLE}</style></head>\n<body>\n"
        f"{body.replace('</h1>', f'</h1><nav>{nav}</nav>', 1)}<script>{SORT}</script></body></html>\n"
    )


def _link(place: str, words: str) -> str:
    return f'<a href="#{place}">{words}</a>'


def _row(name: str, links: list[str]) -> str:
    return f"<p><span>{name}:</span>{''.join(links)}</p>" if links else ""

"""All tables and figures by name."""

from pipeline.papers import fiinet, flsest
from pipeline.papers.exhibit import Exhibit

EXHIBITS: dict[str, Exhibit] = {each.name: each for each in (*fiinet.EXHIBITS, *flsest.EXHIBITS)}

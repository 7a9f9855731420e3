"""A command line that answers a typing error with the nearest valid word."""

import re
import sys
from argparse import ArgumentParser
from difflib import get_close_matches
from typing import Any, NoReturn

from pipeline.common.errors import unknown


class Parser(ArgumentParser):
    """`ArgumentParser` without abbreviations whose errors suggest the word that was meant.

    Options may stand between the other words of a command: `watch my-clicks --model fm tomorrow.csv`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})
        self._has_commands = self._parsing = False

    def add_subparsers(self, **options: Any) -> Any:
        """Add commands, each with options and words of its own."""
        self._has_commands = True
        return super().add_subparsers(**options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is left over here, where the options of this command are known, not at the top."""
        if self._parsing:  # below, Python 3.11 parses options and the other words in turn
            return super().parse_known_args(args, namespace)
        words = sys.argv[1:] if args is None else list(args)
        plain = self._has_commands or "--" in words  # behind `--` Python 3.11 would look for options again
        self._parsing = True
        try:
            parse = super().parse_known_args if plain else self.parse_known_intermixed_args
            values, rest = parse(words, namespace)
        finally:
            self._parsing = False
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return values, rest

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        option = re.match(r"unrecognized arguments: (-\S+)", message)
        if choice:
            known = [word.strip(" '\"") for word in choice[2].split(",")]
            message = message[: choice.start()] + unknown("choice", choice[1], known)
        elif option and (
            near := get_close_matches(option[1], re.findall(r"--[\w-]+", self.format_help()), n=1)
        ):
            message += f"; did you mean {near[0]}?"
        super().error(message)

"""The results of a benchmark in sections, as tables for people and as JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reporting import Grid
from benchmarks.results import Comparison, Results
from benchmarks.timings import Spread


@dataclass(frozen=True)
class Report:
    """How the results of a benchmark are shown.

    Attributes:
        titles: of the sections, by their letters.
        compare: computes the comparisons of a section.
    """

    titles: Mapping[str, str]
    compare: Mapping[str, Callable[[Results], Iterator[Comparison]]]

    def sections(self, results: Results) -> list[str]:
        measured = {key.section for key in results.values}
        return [section for section in self.titles if section in measured]

    def comparisons(self, results: Results) -> list[Comparison]:
        return [one for section in self.sections(results) for one in self.compare[section](results)]

    def grids(self, results: Results) -> list[Grid]:
        """The measurements and the comparisons of each section."""
        found = []
        for section in self.sections(results):
            found.append(self._figures(results, section))
            found.append(self._ratios(results, section))
        return found

    def _figures(self, results: Results, section: str) -> Grid:
        keys = [key for key in results.values if key.section == section]
        measures = list(dict.fromkeys(key.measure for key in keys))
        keys.sort(key=lambda key: measures.index(key.measure))
        rounds = max(len(results.values[key]) for key in keys)
        return Grid(
            f"{self.titles[section]}: {rounds} {'round' if rounds == 1 else 'rounds'}",
            ["measured", "who", "median", "lowest to highest"],
            2,
            [[key.measure, key.variant, *_cells(Spread.of(results.values[key]))] for key in keys],
            "\n".join(results.notes.get(section, [])),
        )

    def _ratios(self, results: Results, section: str) -> Grid:
        return Grid(
            f"({section}) compared",
            ["measured", "ratio", "aim", "reached", "lowest to highest", "verdict"],
            2,
            [
                [
                    one.measure,
                    one.subject,
                    str(one.aim or ""),
                    *_cells(one.ratio, digits=_ratio_digits(one)),
                    one.verdict,
                ]
                for one in self.compare[section](results)
            ],
        )

    def write_markdown(self, path: Path, lines: Sequence[str], results: Results) -> None:
        parts = [*lines, *(grid.as_markdown() for grid in self.grids(results))]
        path.write_text("\n\n".join(parts).replace("\n\n\n", "\n\n") + "\n")

    def write_json(self, path: Path, environment: Mapping[str, Any], results: Results) -> None:
        content = {
            "environment": environment,
            "notes": results.notes,
            "values": [{**asdict(key), "rounds": values} for key, values in results.values.items()],
            "comparisons": [
                {**asdict(one), "aim": one.aim and str(one.aim), "verdict": one.verdict}
                for one in self.comparisons(results)
            ],
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _ratio_digits(one: Comparison) -> int:
    """Enough of them to see whether an aim near 1 is reached."""
    return 3 if one.aim and 1 < one.aim.value < 1.1 else 2


def _cells(spread: Spread, digits: int | None = None) -> list[str]:
    shown = _digits(spread.middle) if digits is None else digits
    return [
        f"{spread.middle:,.{shown}f}",
        f"{spread.low:,.{shown}f} to {spread.high:,.{shown}f}",
    ]


def _digits(value: float) -> int:
    return 0 if value >= 100 or value == 0 else 1 if value >= 10 else 2

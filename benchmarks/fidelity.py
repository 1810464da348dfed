"""The table of fidelity figures in the README: every flow in a folder, certified.

    python -m benchmarks.fidelity [FOLDER]

Markdown; files that are no flow are named with the reason. Without FOLDER it is the one of the sample data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hftlab
from benchmarks.samples import folder
from hftlab.cli.common import plural
from hftlab.fidelity.certify import Certificate

CAUSES_SHOWN = 3
HEAD = (
    "file",
    "facts",
    "executions",
    "reproduced",
    "oldest first, as told",
    "and when the event is over",
    "touch equal",
    "not reproduced because",
)


def row(name: str, certificate: Certificate) -> tuple[str, ...]:
    """The cells of one file."""
    c = certificate
    causes = sorted(c.causes.items(), key=lambda cause: -cause[1])[:CAUSES_SHOWN]
    return (
        f"{c.format}: {name}",
        f"{c.rows:,}",
        f"{c.executions:,}" + (f" + {c.hidden:,} hidden" if c.hidden else ""),
        *(f"{share:.1%}" if share is not None else "" for share in shares(c)),
        ", ".join(f"{cause} {count:,}" for cause, count in causes),
    )


def shares(c: Certificate) -> tuple[float | None, ...]:
    """Executions reproduced, those of the oldest order by either rule, events with an equal touch."""
    return c.execution_share, c.oldest_first_share, c.oldest_first_at_end_share, c.touch_share


def opened(path: Path) -> list[tuple[str, hftlab.Flow]]:
    """The flow in a file; a LOBSTER one also with the book that lies beside it, if there is one."""
    name = path.name.split(".")[0]
    flows = [(name, hftlab.open_flow(path))]
    books = sorted(path.parent.glob(f"{path.name.split('_message')[0]}_orderbook*"))
    if flows[0][1].format == "lobster" and books:
        flows.append((f"{name}, opening book given", hftlab.open_flow(path, initial_book=books[0])))
    return flows


def main() -> int:
    """Print the table."""
    if len(sys.argv) > 2 or not all(Path(name).is_dir() for name in sys.argv[1:]):
        print("usage: python -m benchmarks.fidelity [FOLDER]", file=sys.stderr)
        return 2
    data = Path(sys.argv[1]) if sys.argv[1:] else folder()
    print(f"| {' | '.join(HEAD)} |\n| --- {'| ---: ' * (len(HEAD) - 2)}| --- |")
    others = []
    for path in sorted(path for path in data.rglob("*") if path.suffix not in (".md", "")):
        try:
            for name, flow in opened(path):
                print(f"| {' | '.join(row(name, hftlab.certify(flow)))} |", flush=True)
        except hftlab.HftlabError as error:
            others.append(str(error))
    print(f"\n{plural(len(others), 'file')} without a flow:", *others, sep="\n- ")
    return 0


if __name__ == "__main__":
    sys.exit(main())

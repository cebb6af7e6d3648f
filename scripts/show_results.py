"""Print the tables of one or more runs from their results.json.

python scripts/show_results.py outputs/clustering/clevr4 outputs/clustering/cards
"""

import argparse
from pathlib import Path

from crl.errors import command
from crl.results import read_cells, score_table


@command
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders that hold a results.json")
    runs = parser.parse_args(argv).runs
    cells = [cell for run in runs for cell in read_cells(run / "results.json")]
    print(score_table(f"{runs[0].parent.name} (percent)", cells))


if __name__ == "__main__":
    main()

"""Whether two commits do the same: the digests that asv has measured beside their times.

    python -m benchmarks.digests main HEAD

asv compares numbers by a factor, within which two digests may lie by chance; here they are equal or not. Ends
with status 1 where one differs, and where none was measured of both: their times then say nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from typing import Any

NAME = ".track_digest"


def digests_of(commit: str, folder: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By machine, environment, benchmark and its version: the digest of each set of parameters."""
    from asv.results import iter_results  # asv imports this folder where asv itself isn't installed

    found = {}
    for result in iter_results(folder):
        for name in result.get_all_result_keys():
            if result.commit_hash == commit and name.endswith(NAME):
                params = result.get_result_params(name)
                values = result.get_result_value(name, params) or []
                key = result.params["machine"], result.env_name, name, result.benchmark_version[name]
                found[key] = {str(place): value for place, value in enumerate(values) if value is not None}
    return found


def main() -> None:
    """Compare and say."""
    from asv.config import Config

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("head")
    options = parser.parse_args()
    commits = [
        subprocess.run(
            ["git", "rev-parse", f"{name}^{{commit}}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in (options.base, options.head)
    ]
    folder = Config.load().results_dir
    before, after = (digests_of(commit, folder) for commit in commits)
    both = [
        (key, place)
        for key in before.keys() & after.keys()
        for place in before[key].keys() & after[key].keys()
    ]
    differ = sorted({key[2] for key, place in both if before[key][place] != after[key][place]})
    if differ:
        sys.exit(f"different behaviour, so that times say nothing: {', '.join(differ)}")
    if not both:
        sys.exit("no digest was measured of both commits: let SUITE include track_digest")
    print(f"same behaviour: {len(both)} {'digest is' if len(both) == 1 else 'digests are'} equal")


if __name__ == "__main__":
    main()

#!/bin/sh
# pyarrow 26.0.1: text becomes another decimal, without an error, where it has more digits than the type has room for.
#
# Expected: an error, or the number that is written. Seen: 1e30 with 18 decimals, which is beyond the 38 digits of
# decimal128, becomes 18960114910927365649.471927446130393088, and 7e-48 becomes 0 where 7e-20 is refused.
# Why it matters: prices, quantities and times in text must be looked at before Arrow converts them.
#
# Needs nothing of hftlab: installs the package into a temporary folder and exits with 1 when what is seen changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import pyarrow as pa

SEEN = {
    ("1e30", 18): "18960114910927365649.471927446130393088",  # 10^30 needs 31 + 18 digits
    ("1" * 36, 9): "70969884758390269254044845563.986118144",  # 36 + 9 digits
    ("7e-48", 9): "0.000000000",
    ("7e-20", 9): "ArrowInvalid",  # as it should be
    ("1.5", 9): "1.500000000",
}
print("pyarrow", pa.__version__)
changed = False
for (text, decimals), expected in SEEN.items():
    try:
        value = pa.array([text]).cast(pa.decimal128(38, decimals))[0].as_py()
        found = f"{value:f}"
    except pa.ArrowInvalid as error:
        found = type(error).__name__
    print(f"{text[:12]:12} as decimal128(38, {decimals}): {found}" + ("" if found == expected else f", was {expected}"))
    changed |= found != expected
sys.exit(changed)
PYTHON

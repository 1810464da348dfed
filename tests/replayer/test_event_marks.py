"""Whether a source marks the ends of events is settled for the whole flow, however it is cut."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import hftlab
from hftlab.codes import MBO_FLAG_LAST
from hftlab.errors import UsageError

# rows 1 and 2 cross inside an event that ends with row 3, where the offer is gone
CROSSED_FOR_A_MOMENT = {
    "action": ["A", "A", "A", "C"],
    "side": [1, -1, 1, -1],
    "order_id": [1, 2, 3, 2],
    "price": [9 * 10**9, 10 * 10**9, 11 * 10**9, 10 * 10**9],
    "size": [1, 1, 1, 1],
    "flags": [0, 0, 0, MBO_FLAG_LAST],
}
ANOMALIES = {"mode": "rebuild", "record": "anomalies"}


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_table_in_chunks_has_the_anomalies_of_the_whole(rows):
    """A chunk without a mark, before the first one, ends no event: its books may be crossed."""
    assert hftlab.replay(CROSSED_FOR_A_MOMENT, **ANOMALIES).anomalies.is_empty()
    assert hftlab.replay(CROSSED_FOR_A_MOMENT, chunk_rows=rows, **ANOMALIES).anomalies.is_empty()


def test_a_file_whose_first_chunk_has_no_mark_is_refused(tmp_path):
    """A file is not read twice, so it says what to do; what needs no marks is replayed in any chunks."""
    path = tmp_path / "mbo.parquet"
    times = pa.array(range(4), pa.timestamp("ns"))
    pq.write_table(pa.table({"ts_event": times, **CROSSED_FOR_A_MOMENT}), path)
    with pytest.raises(UsageError, match=r"first mark of an event's end after row 3.* larger chunk_rows"):
        hftlab.replay(path, chunk_rows=3, **ANOMALIES)
    assert hftlab.replay(path, chunk_rows=4, **ANOMALIES).anomalies.is_empty()
    whole = hftlab.replay(path, mode="rebuild", record="l1")
    assert hftlab.replay(path, mode="rebuild", record="l1", chunk_rows=3).digest == whole.digest

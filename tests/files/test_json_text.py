import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.files.json_text import parse_json

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@given(DOCUMENTS)
def test_documents_come_back(document):
    assert parse_json(json.dumps(document).encode()) == document


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_value_error(data):
    try:
        parse_json(data)
    except ValueError:
        return


@pytest.mark.parametrize("shape", ["[]", '{"a":}'])
def test_depth_has_a_limit(shape):
    begin, end = shape[:-1], shape[-1]
    assert parse_json((begin * 99 + "1" + end * 99).encode())
    for depth in (101, 500, 200_000):
        with pytest.raises(ValueError, match="JSON_DEPTH"):
            parse_json((begin * depth + "1" + end * depth).encode())
    hidden = '["' + "]" * 200_000 + '",' + "[" * 199_000 + "]" * 199_000 + "]"
    with pytest.raises(ValueError, match="too deep"):
        parse_json(hidden.encode())


def test_values_have_a_limit(monkeypatch):
    monkeypatch.setenv("WSI_SEG_MAX_TEXT_VALUES", "10")
    assert parse_json(b"[1, 2, 3, 4, 5, 6, 7, 8, 9]")
    with pytest.raises(ValueError, match="TEXT_VALUES"):
        parse_json(b"[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]")

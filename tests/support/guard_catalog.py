"""A catalog for tests of the guard, as it would be read from a database, and the check that it refuses."""

from collections.abc import Mapping

import pytest

from virtualchain.store.guard.catalog import Catalog, Table
from virtualchain.store.guard.refusal import ForbiddenStatement
from virtualchain.store.guard.statements import examine

IMMUTABLE = frozenset(
    """
    any_value array_agg array_sort bool_or chr count date_larger date_mi decode encode first_value
    generate_series hashtext int4send isfinite jsonb_array_elements jsonb_each jsonb_object_agg
    jsonb_path_query lag left length lower max md5 min normalize position rank regexp_count
    regexp_split_to_table repeat reverse round row_number sha256 string_agg sum timestamp_mi to_bin
    to_tsvector unnest upper xmlagg
    """.split()
)
"""Built-in functions that the catalog calls immutable."""
OTHERS = frozenset(
    """
    clock_timestamp concat current_setting currval extract gen_random_uuid has_table_privilege
    inet_client_addr jsonb_agg lastval lo_create nextval now obj_description pg_advisory_lock pg_backend_pid
    pg_notify pg_sleep pg_try_advisory_xact_lock query_to_xml random set_config statement_timestamp timeofday
    to_char to_regclass txid_current uuidv7 version
    """.split()
)
"""Built-in functions that it calls stable or volatile."""


def are_immutable(names: frozenset[str]) -> Mapping[str, bool]:
    """Answer as the server's catalog does."""
    return {name: name in IMMUTABLE for name in names & (IMMUTABLE | OTHERS)}


CATALOG = Catalog(
    {
        "t": Table(
            {
                "a": "integer",
                "b": "text",
                "rank": "integer",
                "val": "text",
                "is_number": "boolean",
                "j": "jsonb",
                "since_block": "integer",
                "n": "numeric",
            },
            ("a",),
            (frozenset({"a"}), frozenset({"rank"})),
            keys=(frozenset({"a"}),),
            weak_keys=(frozenset({"rank"}),),
            checked=frozenset({"a", "rank"}),
            required=frozenset({"a", "since_block"}),
        ),
        "kinds": Table(
            {"kind": "text", "is_number": "boolean"},
            ("kind",),
            (frozenset({"kind"}),),
            keys=(frozenset({"kind"}),),
        ),
        "entries": Table(
            {"block_id": "integer", "vtxindex": "integer", "author": "text", "message": "text"},
            ("block_id", "vtxindex"),
            (frozenset({"block_id", "vtxindex"}),),
            keys=(frozenset({"block_id", "vtxindex"}),),
        ),
        "hashes": Table({"id": "integer", "h": "bytea"}, ("id",), ()),
        "moments": Table({"a": "integer", "at": "timestamp without time zone"}, ("a",), ()),
    },
    frozenset({"color"}),
    {"positive": "integer", "raw": "bytea"},
    are_immutable,
)


def is_refused(statement: str) -> None:
    """Check that the guard refuses a statement, and that the error names it and says why."""
    with pytest.raises(ForbiddenStatement, match="may not run"):
        examine(statement, CATALOG, has_parameters="%s" in statement)

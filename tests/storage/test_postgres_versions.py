"""That the statements are those of PostgreSQL 13, of which there is no server to try them."""

from __future__ import annotations

import re
from importlib import resources

from holdfast.storage.postgres.queries import OFFLINE, PACKAGE, QUERIES

FUNCTIONS_OF_13 = {
    *("bool_and", "bool_or", "cardinality", "chr", "clock_timestamp", "coalesce", "concat", "convert_to", "count"),
    *("current_schema", "current_setting", "extract", "format", "gen_random_uuid", "generate_series", "get_byte"),
    *("greatest", "json_populate_recordset", "json_to_recordset", "jsonb_build_object", "jsonb_each", "jsonb_typeof"),
    *("jsonb_strip_nulls", "least", "left", "length", "lower", "lpad", "max", "min", "nullif", "octet_length"),
    *("pg_notify", "quote_literal", "replace", "set_config", "starts_with", "string_agg", "strpos", "to_char"),
    *("to_hex", "unnest"),
}
"""Each is in chapter 9 of its manual. Before one is added, look whether it is there, with these arguments."""
NO_FUNCTIONS = {
    *("all", "and", "any", "array", "as", "check", "conflict", "distinct", "exists", "from", "in", "join", "key"),
    *("materialized", "not", "or", "table", "using", "values", "where", "with"),
    *("fence", "gone", "kept", "new", "offered", "partition", "running", "wanted"),
}
"""Words of the language, and names that are given to rows."""
NEWER = re.compile(
    r"\b(merge into|nulls not distinct|is json|search (depth|breadth) first|begin atomic|without overlaps"
    r"|returning (old|new)\.|virtual|compression|\d_\d{3})\b"
)
"""Syntax of 14 to 18 that one may think of here."""


def test_every_function_and_every_piece_of_syntax_is_there_in_13() -> None:
    folder = resources.files(PACKAGE).joinpath("migrations")
    scripts = [entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".sql")]
    found = "\n".join((*scripts, *QUERIES.values(), *OFFLINE.values())).lower()
    sql = re.sub(r"'[^'\n]*'", "''", re.sub(r"--[^\n]*", "", found))
    own = set(re.findall(r"create (?:function|table|unlogged table) (\w+)", sql))
    assert set(re.findall(r"\b([a-z_]\w*) ?\(", sql)) - NO_FUNCTIONS - own == FUNCTIONS_OF_13 - own
    assert NEWER.search(sql) is None

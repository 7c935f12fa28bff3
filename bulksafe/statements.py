"""Classifies SQL statements by their text, without a parser or the database."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.db.backends.base.base import BaseDatabaseWrapper

_BEFORE = r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*"
_FLAGS = re.IGNORECASE | re.DOTALL

#: Statements that name their target table.
WRITES = re.compile(rf"{_BEFORE}(?:INSERT|UPDATE|DELETE|MERGE|COPY|WITH|CALL|DO)\b", _FLAGS)

_KEYWORD = re.compile(rf"{_BEFORE}([A-Z]+)\b", _FLAGS)

#: Commands that run no trigger and no function. This excludes COMMIT, because of deferred triggers,
#: and FETCH and MOVE, which run the cursor's query.
_HARMLESS = frozenset(
    """
    abort begin checkpoint close deallocate declare discard listen lock notify prepare release
    reset rollback savepoint set show start unlisten
    """.split()
)
_QUERIES = frozenset({"select", "table", "values"})

#: Exceptions among the harmless ones: both run deferred triggers.
_RUNS_DEFERRED = re.compile(rf"{_BEFORE}(?:SET\s+CONSTRAINTS|PREPARE\s+TRANSACTION)\b", _FLAGS)
_ANALYZES = re.compile(r"\bANALY[SZ]E\b", re.IGNORECASE)

#: Statements that may run in a transaction of their own. VACUUM, CREATE INDEX CONCURRENTLY and
#: similar ones may not.
_FITS_IN_TRANSACTION = re.compile(
    rf"{_BEFORE}(?:INSERT|UPDATE|DELETE|MERGE|COPY|WITH|CALL|DO|SELECT|TABLE|VALUES|EXECUTE|EXPLAIN"
    r"|REFRESH|TRUNCATE|CREATE\s+(?:(?:LOCAL|GLOBAL|TEMP|TEMPORARY|UNLOGGED|MATERIALIZED)\s+)*"
    r"(?:TABLE|VIEW))\b",
    _FLAGS,
)

#: Statements that may change a setting.
_SETS = re.compile(r"\bSET\b|\bset_config\b", re.IGNORECASE)

#: Statements that may undo a transaction-local setting.
_UNDOES_SETTINGS = re.compile(
    rf"(?:\A|;){_BEFORE}(?:(?:ROLLBACK|ABORT|COMMIT|END|RESET|DISCARD)\b|DO\b.*\bRESET\b)", _FLAGS
)

_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'

#: Quoted identifiers, which are kept, and literals, function bodies and comments, which are
#: removed.
_QUOTED = re.compile(
    r"""
    (?P<identifier> "(?:[^"]|"")*" )
    | (?<![\w$]) E'(?:[^'\\]|''|\\.)*'
    | '(?:[^']|'')*'
    | (?<![\w$]) (?P<tag>\$\w*\$) .*? (?P=tag)
    | --[^\n]*
    | /\*.*?\*/
    """,
    _FLAGS | re.VERBOSE,
)
#: A name before a parenthesis. After AS or :: it is a type, or an alias with its columns.
_CALLED = re.compile(
    rf"(?P<no_function>\bAS\s+|::\s*)?(?:(?P<schema>{_NAME})\s*\.\s*)?(?P<name>{_NAME})\s*\(",
    _FLAGS,
)

#: Words before a parenthesis that are not functions.
_KEYWORDS = frozenset(
    """
    all analyze and any array as asc between bit by case cast char character columns cross cube
    decimal desc distinct else end escape except exists filter first float for from full group
    grouping having ilike in inner interval intersect is join keys lateral left like limit
    materialized natural next not numeric of offset on or order over partition precision right
    rollup row rows select sets similar some symmetric table then time timestamp timestamptz to
    union update using values varbit varchar varying when where window with within zone
    """.split()
)

#: Common functions of PostgreSQL, and of the extensions that Django has functions for. None of them
#: fires a trigger or runs SQL from its arguments: ``query_to_xml``, ``ts_stat`` and similar ones
#: are left out, and so is ``log``, which many databases define themselves.
_BUILT_IN = frozenset(
    """
    abs acos acosd acosh age akeys any_value array_agg array_append array_cat array_dims
    array_fill array_length array_lower array_ndims array_position array_positions array_prepend
    array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_json
    array_to_string array_upper ascii asin asind asinh atan atan2 atan2d atand atanh avals avg
    bit_and bit_count bit_length bit_or bit_xor bool_and bool_or btrim cardinality casefold cbrt
    ceil ceiling char_length character_length chr clock_timestamp coalesce col_description
    concat concat_ws convert convert_from convert_to corr cos cosd cosh cot cotd count covar_pop
    covar_samp crc32 crc32c cume_dist current_database current_query current_schema
    current_schemas current_setting currval date_add date_bin date_part date_subtract date_trunc
    daterange datemultirange decode degrees dense_rank div encode enum_first enum_last
    enum_range erf erfc every exp extract factorial first_value floor format format_type gamma
    gcd gen_random_uuid generate_series generate_subscripts get_bit get_byte
    get_current_ts_config greatest has_any_column_privilege has_column_privilege
    has_database_privilege has_function_privilege has_schema_privilege has_sequence_privilege
    has_table_privilege host hostmask initcap int4range int4multirange int8range int8multirange
    isempty isfinite inet_client_addr inet_server_addr json json_agg json_agg_strict json_array
    json_array_elements json_array_elements_text json_array_length json_arrayagg
    json_build_array json_build_object json_each json_each_text json_exists json_extract_path
    json_extract_path_text json_object json_object_agg json_object_keys json_objectagg
    json_populate_record json_populate_recordset json_query json_scalar json_serialize
    json_strip_nulls json_table json_to_record json_to_recordset json_typeof json_value
    jsonb_agg jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text jsonb_array_length
    jsonb_build_array jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path
    jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg jsonb_object_keys
    jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set
    jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof justify_days
    justify_hours justify_interval lag last_value lastval lcm lead least left length lgamma ln
    localtime localtimestamp log10 lower lower_inc lower_inf lpad ltrim make_date make_interval
    make_time make_timestamp make_timestamptz masklen max md5 min min_scale mod mode multirange
    network nextval normalize now nth_value ntile nullif num_nonnulls num_nulls numrange
    nummultirange numnode obj_description octet_length overlay parse_ident percent_rank
    percentile_cont percentile_disc phraseto_tsquery pi plainto_tsquery position pow power
    quote_ident quote_literal quote_nullable querytree radians random random_normal range_agg
    range_intersect_agg range_merge rank regexp_count regexp_instr regexp_like regexp_match
    regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
    repeat replace reverse right round row_number row_to_json rpad rtrim scale session_user
    set_config set_masklen setseed setval setweight sha224 sha256 sha384 sha512
    shobj_description sign similarity sin sind sinh split_part sqrt starts_with
    statement_timestamp stddev stddev_pop stddev_samp strict_word_similarity string_agg
    string_to_array string_to_table strip strpos substr substring sum tan tand tanh timeofday
    timezone to_char to_date to_hex to_json to_jsonb to_number to_regclass to_regnamespace
    to_regproc to_regtype to_timestamp to_tsquery to_tsvector transaction_timestamp translate
    trim trim_array trim_scale trunc ts_debug ts_delete ts_filter ts_headline ts_lexize ts_rank
    ts_rank_cd tsquery_phrase tsrange tsmultirange tstzrange tstzmultirange tsvector_to_array
    txid_current txid_current_if_assigned txid_current_snapshot unaccent unistr unnest upper
    upper_inc upper_inf uuidv4 uuidv7 uuid_extract_timestamp uuid_extract_version
    uuid_generate_v4 var_pop var_samp variance version websearch_to_tsquery width_bucket
    word_similarity
    """.split()
)
#: PostgreSQL's system functions, and PostGIS.
_BUILT_IN_PREFIXES = ("pg_", "st_")


def text_of(statement: object, connection: BaseDatabaseWrapper) -> str:
    """The text of a statement in any form that the driver accepts.

    Args:
        connection: Django's.
    """
    if isinstance(statement, str):
        return statement
    if isinstance(statement, sql.Composable):
        return statement.as_string(connection.connection)
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    return str(statement)


#: Texts longer than this are not remembered, and of the others so many.
_LONG, _MANY = 4000, 2000


def _remembered(classify: Callable[[str], bool]) -> Callable[[str], bool]:
    """Remember the answers: statement texts recur, without their parameters; long ones seldom do.

    Each statement is classified several times, and the search takes longer than the lookup.
    """
    known: dict[str, bool] = {}

    @functools.wraps(classify)
    def remembered(text: str) -> bool:
        found = known.get(text)
        if found is None:
            found = classify(text)
            if len(text) < _LONG and len(known) < _MANY:
                known[text] = found
        return found

    return remembered


@_remembered
def may_write(text: str) -> bool:
    """Whether a statement may change rows, directly or through functions.

    False only for commands that run nothing, and for queries that call no functions but
    PostgreSQL's own. Operators, casts, views and ``row.function`` are not examined.
    """
    matched = _KEYWORD.match(text)
    if matched is None:
        return True
    keyword = matched[1].lower()
    code = _QUOTED.sub(lambda quoted: quoted["identifier"] or " ", text)
    if ";" in code.strip().rstrip(";"):
        return True
    if keyword == "explain":
        return _ANALYZES.search(code) is not None
    if keyword in _HARMLESS:
        return _RUNS_DEFERRED.match(text) is not None
    return keyword not in _QUERIES or any(map(_is_foreign, _CALLED.finditer(code)))


def _is_foreign(called: re.Match[str]) -> bool:
    """Whether a name before a parenthesis is a function not of PostgreSQL."""
    schema, name = called["schema"], called["name"]
    if called["no_function"] or (schema is None and name.lower() in _KEYWORDS):
        return False
    if schema is not None and schema.strip('"').lower() != "pg_catalog":
        return True
    name = name.strip('"').lower()
    return name not in _BUILT_IN and not name.startswith(_BUILT_IN_PREFIXES)


def fits_in_transaction(text: str) -> bool:
    """Whether a statement may run in a transaction of its own."""
    return _FITS_IN_TRANSACTION.match(text) is not None


@_remembered
def may_set(text: str) -> bool:
    """Whether a statement may change a setting itself."""
    return _SETS.search(text) is not None


@_remembered
def may_undo_settings(text: str) -> bool:
    """Whether a statement may undo a transaction-local setting."""
    return _UNDOES_SETTINGS.search(text) is not None

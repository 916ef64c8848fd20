"""The tables, and what is in their rows.

- `_tables`: the tables of the record; `_service_tables`: those that only the service uses.
- `_columns`: columns, by what they hold.
- `_rows`: records as rows of their table, and back; `_values`: the parts that rows share.
- `_upserts`: inserts or replaces many rows by few statements.
"""

from __future__ import annotations

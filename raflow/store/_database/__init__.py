"""The database as a whole: connections to it, its clock, its revision.

- `_engine`: how each database is opened, how long it is waited for, what its errors mean.
- `_clock`: the time that all hosts agree about.
- `_schema`: asks for the revision, and brings it up to date; `_revision`: what it means.
- `_migrate`, `_migrations`: the way from older revisions, by Alembic.
"""

from __future__ import annotations

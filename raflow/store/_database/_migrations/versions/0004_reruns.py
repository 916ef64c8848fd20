"""Which flow run another one is a rerun of.

Revision: 0004
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    op.add_column("flow_runs", sa.Column("rerun_of", sa.Text(), nullable=True))

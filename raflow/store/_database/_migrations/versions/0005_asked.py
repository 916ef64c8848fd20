"""What memory an attempt asked for, and what a rerun was asked to run again.

Revision: 0005
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("memory", sa.BigInteger(), nullable=True))
    op.add_column("flow_runs", sa.Column("rerun_from", sa.Text(), nullable=True))

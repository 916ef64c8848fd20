"""Run by Alembic: applies migrations on the connection that `raflow.store` hands over."""

from __future__ import annotations

from alembic import context

from raflow.store._rows import _service_tables, _tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=_service_tables.deployments.metadata,
    version_table=_tables.version.name,
    # Whole or not at all, on SQLite too: its transactions cover changes of tables.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

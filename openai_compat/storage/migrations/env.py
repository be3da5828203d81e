"""Environment of Alembic, which runs the migrations on the connection that `storage.migrate` opened."""

from __future__ import annotations

from alembic import context

from openai_compat.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
)
context.run_migrations()

"""Run by alembic: apply revisions over the connection, and inside the transaction, that `coterie.storage` hands in."""

from alembic import context

from coterie.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()

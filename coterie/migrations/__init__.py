"""The tables of Coterie's database, revision by revision. `coterie.storage` applies them when it opens one.

A revision that was published is never changed: what follows from it is a new file in ``versions``, and `HEAD` names the
last one.
"""

HEAD = "0003"
VERSION_TABLE = "coterie_schema"  # a database may be shared with others who migrate their own tables

"""The database: SQLite, one writer, migrations, sealed secrets, and a module of queries per thing.

Only here is SQL. Query functions take the open ``Database`` and are run by ``Store.read`` and
``Store.write``, so that a use case composes several of them into one transaction. Nothing here
knows HTTP, gRPC or a rule of business.
"""

"""Columns of the tables, by what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.schema import SchemaItem

# SQLite gives out numbers only for a key that is declared INTEGER.
NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def key(name: str, *, text: bool = False) -> SchemaItem:
    kind = sa.Text() if text else sa.Integer()
    return sa.Column(name, kind, primary_key=True, autoincrement=False)


def time_key(name: str) -> SchemaItem:
    return sa.Column(name, sa.Double(), primary_key=True, autoincrement=False)


def number(name: str) -> SchemaItem:
    """Return a key that the database gives out."""
    return sa.Column(name, NUMBER, primary_key=True, autoincrement=True)


def text(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Text(), nullable=nullable)


def integer(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def big(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def double(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Double(), nullable=nullable)


def binary(name: str, *, nullable: bool = True) -> SchemaItem:
    return sa.Column(name, sa.LargeBinary(), nullable=nullable)


def boolean(name: str, *, nullable: bool = False) -> SchemaItem:
    return sa.Column(name, sa.Boolean(), nullable=nullable)

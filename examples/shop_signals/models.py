"""The shop's tables under other names. The rules are in ``receivers.py``."""

from examples.shop import tables


class Customer(tables.CustomerTable):
    pass


class Product(tables.ProductTable):
    pass


class Order(tables.OrderTable):
    pass


class OrderLine(tables.OrderLineTable):
    pass


class LedgerEntry(tables.LedgerEntryTable):
    pass


class Refund(tables.RefundTable):
    pass


class RefundTotal(tables.RefundTotalTable):
    pass


class AuditLog(tables.AuditLogTable):
    pass

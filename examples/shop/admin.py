from django.contrib import admin

from bulksafe.admin import RefusalMessagesMixin
from examples.shop.models import (
    AuditLog,
    Customer,
    LedgerEntry,
    Order,
    OrderLine,
    Product,
    Refund,
    RefundTotal,
)


class ShopAdmin(RefusalMessagesMixin, admin.ModelAdmin):
    """Shows what a rule or a receiver refuses on the page."""


@admin.register(Customer)
class CustomerAdmin(ShopAdmin):
    list_display = ["name", "email", "credit_limit"]
    search_fields = ["name", "email_key"]


@admin.register(Product)
class ProductAdmin(ShopAdmin):
    list_display = ["sku", "name", "price", "stock"]
    list_editable = ["price", "stock"]
    search_fields = ["sku", "name"]


class OrderLineInline(admin.TabularInline):
    model = OrderLine
    autocomplete_fields = ["product"]
    readonly_fields = ["total"]
    extra = 0


@admin.register(Order)
class OrderAdmin(ShopAdmin):
    list_display = ["number", "customer", "status", "amount", "discount", "net", "placed_at"]
    list_filter = ["status"]
    list_select_related = ["customer"]
    search_fields = ["number"]
    autocomplete_fields = ["customer"]
    readonly_fields = ["net"]
    inlines = [OrderLineInline]
    actions = ["mark_paid"]

    @admin.action(description="Mark the selected orders as paid")
    def mark_paid(self, request, queryset):
        """A bulk update, which signal receivers never see."""
        queryset.update(status=Order.Status.PAID)


@admin.register(LedgerEntry)
class LedgerEntryAdmin(ShopAdmin):
    list_display = ["booked_at", "account", "kind", "amount", "signed_amount", "closed"]
    list_filter = ["kind", "closed"]


@admin.register(Refund)
class RefundAdmin(ShopAdmin):
    list_display = ["number", "order", "amount", "reason", "approved", "created_at"]
    list_filter = ["reason", "approved"]
    list_select_related = ["order"]
    search_fields = ["number", "order__number"]
    autocomplete_fields = ["order"]
    readonly_fields = ["number"]


@admin.register(RefundTotal)
class RefundTotalAdmin(ShopAdmin):
    list_display = ["customer", "amount"]
    list_select_related = ["customer"]

    def has_add_permission(self, request):
        return False

    def has_change_permission(self, request, obj=None):
        """The receivers keep it."""
        return False


@admin.register(AuditLog)
class AuditLogAdmin(ShopAdmin):
    list_display = ["at", "entity", "entity_id", "action"]
    list_filter = ["entity", "action"]

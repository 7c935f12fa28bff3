from django.contrib import admin

from tests.apps.twins.models import Entry

admin.site.register(Entry)

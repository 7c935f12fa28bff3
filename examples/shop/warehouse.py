"""The warehouse: another service, which the shop talks to over HTTP.

``WAREHOUSE_URL`` says where it is. Without one, the requests are logged.
"""

import json
import logging
from http.client import HTTPConnection
from urllib.parse import urlsplit

from django.conf import settings

logger = logging.getLogger("shop")

#: Seconds that the warehouse may take to answer; less than ``BULKSAFE["TIMEOUT"]``.
TIMEOUT = 3


class WarehouseError(Exception):
    """The warehouse did not take a request."""


def request_picking(order_number, key):
    """Request the picking of an order's goods.

    ``key`` is sent as ``Idempotency-Key``, by which the warehouse recognizes repeated requests.
    """
    url = getattr(settings, "WAREHOUSE_URL", "")
    if not url:
        logger.info("Picking is requested for order %s (%s).", order_number, key)
        return
    where = urlsplit(url)
    connection = HTTPConnection(where.hostname, where.port, timeout=TIMEOUT)
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        body = json.dumps({"order": order_number})
        connection.request("POST", where.path or "/", body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status >= 300:
        raise WarehouseError(f"The warehouse answered {status} for order {order_number}.")

"""Work over HTTP."""

from service.work.routes_dead_letters import DEAD_LETTERS
from service.work.routes_items import ITEMS
from service.work.routes_queues import QUEUES

ENDPOINTS = [*ITEMS, *DEAD_LETTERS, *QUEUES]

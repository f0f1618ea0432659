"""Where a request goes, found by two look-ups: every path of the service has one of a few shapes.

The shapes are a path without braces, `/v1/<things>/{id}` and `/v1/<things>/{id}/<act>`; what has another one, and a
method that its path does not take, is left to the router.
"""

from collections.abc import Iterable

from service.http.endpoint import Endpoint


class Routes:
    """The endpoints whose paths have one of the shapes."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._fixed: dict[tuple[str, str], Endpoint] = {}
        self._objects: dict[tuple[str, ...], tuple[Endpoint, str]] = {}
        for endpoint in endpoints:
            parts = endpoint.path.split("/")
            if "{" not in endpoint.path:
                self._fixed[endpoint.method, endpoint.path] = endpoint
            elif len(parts) in (4, 5) and parts[1] == "v1" and "{" not in "".join(parts[4:]):
                self._objects[endpoint.method, parts[2], *parts[4:]] = endpoint, parts[3].strip("{}")

    def find(self, method: str, path: str) -> tuple[Endpoint, dict[str, str]] | None:
        """The endpoint of a request and the parts of its path by name, or None."""
        endpoint = self._fixed.get((method, path))
        if endpoint is not None:
            return endpoint, {}
        parts = path.split("/")
        if len(parts) < 4 or parts[1] != "v1" or not parts[3]:
            return None
        found = self._objects.get((method, parts[2], *parts[4:]))
        return None if found is None else (found[0], {found[1]: parts[3]})

"""`holdfast openapi`."""

from pathlib import Path


def openapi(*, output: Path | None = None) -> None:
    """Print the OpenAPI document, or write it to a file.

    Parameters
    ----------
    output
        Write to this file.
    """
    from service.http.contract import text

    if output is None:
        print(text(), end="")
    else:
        output.write_text(text(), "utf-8")

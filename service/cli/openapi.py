"""`holdfast openapi`."""

from pathlib import Path


def openapi(*, output: Path | None = None) -> None:
    """Print the OpenAPI document, or write it to a file.

    Parameters
    ----------
    output
        Write to this file.
    """
    from service.cli.output import print_document
    from service.http.contract import text

    if output is None:
        print_document(text())
    else:
        output.write_text(text(), "utf-8")

"""`raflow server`: the HTTP API, and who signs in."""

from __future__ import annotations

from typing import Annotated

import typer

from raflow.cli._become import become

app = typer.Typer(help="Serve the record over HTTP.", no_args_is_help=False)


@app.callback(invoke_without_command=True)
def server(
    context: typer.Context,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on. Default: 127.0.0.1, or RAFLOW_SERVER_HOST."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port; 0: a free one. Default: 8484, or RAFLOW_SERVER_PORT.")
    ] = None,
    tls_cert: Annotated[str, typer.Option(help="Certificate, in PEM.")] = "",
    tls_key: Annotated[str, typer.Option(help="Its private key, in PEM.")] = "",
    behind_proxy: Annotated[
        str,
        typer.Option(
            help="Addresses of the proxies, separated by commas, that encrypt and whose "
            "X-Forwarded headers are believed."
        ),
    ] = "",
) -> None:
    """Serve the record over HTTP, until Ctrl-C: runs, logs, results, limits, steering, events.

    Everything but its health asks for a token; a sign-in link is printed at the first start.
    """
    if context.invoked_subcommand is not None:
        return
    become(
        "raflow.server",
        host=host,
        port=port,
        tls_cert=tls_cert or None,
        tls_key=tls_key or None,
        behind_proxy=behind_proxy or None,
    )


@app.command("link")
def link() -> None:
    """Print a link that signs a browser in as an administrator: once, within 15 minutes."""
    become("raflow.server", "--link")


@app.command("openapi")
def openapi() -> None:
    """Print the description of the HTTP API (OpenAPI, JSON)."""
    become("raflow.server._openapi")

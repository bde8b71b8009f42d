"""`adapterhub remote`."""

from __future__ import annotations

import sys

import click

from adapterhub.cli.options import json_option
from adapterhub.cli.output import Output
from adapterhub.hub import remotes


@click.group(short_help="Name the places adapters come from.")
def remote() -> None:
    """Remotes are named places, as in git. `local` is a folder on this machine, `hub` the default
    hub; both are always there."""


@remote.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the remotes."""
    out = Output(as_json=as_json)
    known = remotes.remotes().values()
    out.data([{"name": item.name, "uri": item.uri} for item in known])
    out.table(("remote", "uri"), [(item.name, item.uri) for item in known])


@remote.command()
@click.argument("name")
@click.argument("uri")
def add(name: str, uri: str) -> None:
    """Call the folder or hub at URI by NAME."""
    out = Output()
    added = remotes.add_remote(name, uri)
    out.line(f"{added.name}   {added.uri}")
    out.next(f"adapterhub search --remote {added.name}")


@remote.command()
@click.argument("name")
def rm(name: str) -> None:
    """Forget the remote NAME; what was pulled from it stays."""
    removed = remotes.remove_remote(name)
    Output().line(f"forgot {removed.name} ({removed.uri})")


@remote.command()
@click.argument("name")
@click.option("--token", help="The token; asked for, or read from a pipe, when it is not given.")
def login(name: str, token: str | None) -> None:
    """Keep a token for the remote NAME, readable by you alone."""
    from adapterhub.hub.credentials import store_token

    uri = remotes.remote(name).uri
    store_token(uri, token if token is not None else _asked_for(name))
    Output().line(f"kept a token for {name}")


@remote.command()
@click.argument("name")
def logout(name: str) -> None:
    """Forget the token that is kept for the remote NAME."""
    from adapterhub.hub.credentials import forget_token

    forgotten = forget_token(remotes.remote(name).uri)
    Output().line(f"forgot the token for {name}" if forgotten else f"no token is kept for {name}")


def _asked_for(name: str) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    token: str = click.prompt(f"Token for {name}", hide_input=True, err=True)
    return token

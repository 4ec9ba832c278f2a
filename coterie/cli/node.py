"""`coterie node`: one organisation of a federation, with its log, its policy, its ledger and its own secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from coterie.cli.federation import HERE, FolderOption, WatchFlag, asked_daemon, at_home, said, serve, show_status
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError, PeerError, RunError

app = typer.Typer(suggest_commands=False)
policy_app = typer.Typer(suggest_commands=False)
egress_app = typer.Typer(suggest_commands=False)
SHOWN = 16  # hexadecimal characters of a digest that people compare
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id, as `coterie node status` shows it.")]


@app.callback(invoke_without_command=True)
def node(ctx: typer.Context) -> None:
    """Be a node of a federation: train with others without giving the log away."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@policy_app.callback(invoke_without_command=True)
def policy(ctx: typer.Context) -> None:
    """What this node takes part in: see it, pin identities, approve and stop jobs."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@egress_app.callback(invoke_without_command=True)
def egress(ctx: typer.Context) -> None:
    """What has left this site: each message, verifiable, and readable by a person."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def join(
    invitation: Annotated[Path, typer.Argument(metavar="INVITE", help="The invitation's file.")],
    log: Annotated[
        list[str] | None, typer.Option("--log", metavar="LOG", help="The node's log: a file, or several. Stays here.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option("--items", metavar="FILE", help="Its assortment: one row per item; needed where noise is added."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="How the log is cleaned, as in coterie train.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="DIR", help="Folder to make. Default: one called as the node.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Join a federation with an invitation: makes the node's folder and keys, and asks the coordinator to enrol them.

    Joining again with the same invitation and folder changes nothing, and asks again.
    """
    from coterie.federation import enrolment
    from coterie.federation.identity import Identities
    from coterie.federation.invitation import Invitation

    found = Invitation.read(invitation)
    found.check()
    home = folder or Path(found.member)
    at_home(home)
    from coterie.federation.frontdoor import ask

    identities = Identities.open(home, create=True)
    _write_folder(home, found, _logs(log), items, preset)
    answer = ask(found.address, home / "ca.pem", "/coterie/v1/enrol", enrolment.request(found, identities))
    standing = enrolment.read_answer(answer, found)
    wait = "the coordinator's operator approves it next" if standing == "pending" else "it is a member"
    Output(json).result(
        {
            "folder": home,
            "name": found.member,
            "standing": standing,
            "fingerprint": identities.fingerprint,
            "coordinator": found.fingerprint,
        },
        f"{found.member} has enrolled in {found.federation} ({standing}): {wait}",
        f"this node's fingerprint, to be told to the coordinator and every other node: {identities.fingerprint}",
        f"the coordinator's, to be compared with what its operator tells you:          {found.fingerprint}",
        f"read {home / 'node.toml'} and {home / 'policy.toml'}, then: coterie node start --folder {home}",
    )


def _logs(log: list[str] | None) -> tuple[str, ...]:
    """The logs as they are written into node.toml: files by their absolute path.

    Raises:
        ConfigError: there is no such file.
    """
    from coterie.settings import is_database

    named = []
    for one in log or ():
        if not is_database(one) and not Path(one).exists():
            raise ConfigError(f"--log {one}: no such file")
        named.append(one if is_database(one) else str(Path(one).resolve()))
    return tuple(named)


def _write_folder(home: Path, invitation: Any, logs: tuple[str, ...], items: Path | None, preset: str | None) -> None:
    """The node's files; those that are there stay, since a person may have edited them."""
    from coterie.federation.config import NODE_FILE, node_template
    from coterie.federation.membership import Membership
    from coterie.federation.policy import POLICY_FILE, policy_template
    from coterie.files import write_text

    if items is not None and not items.exists():
        raise ConfigError(f"--items {items}: no such file")
    if not (home / NODE_FILE).exists():
        if not logs:
            raise ConfigError("which log is this node's? Give --log FILE")
        data: dict[str, Any] = {"logs": list(logs), **({} if items is None else {"items": str(items.resolve())})}
        write_text(home / NODE_FILE, node_template(invitation.member, invitation.address, preset, **data))
    if not (home / POLICY_FILE).exists():
        write_text(home / POLICY_FILE, policy_template(coordinators=[invitation.fingerprint]))
    write_text(home / "ca.pem", invitation.ca)
    Membership(invitation.federation, invitation.coordinator).write(home)


def start(folder: FolderOption = HERE, json: JsonFlag = False) -> None:
    """Serve the federation's rounds from this node's log, as its policy allows. Stop it with Ctrl-C."""
    at_home(folder)
    from coterie.experiment.node_daemon import NodeDaemon

    out = Output(json)
    daemon = NodeDaemon(folder, said(out))
    serve(daemon.run, daemon.stop)
    out.result({"stopped": str(folder.resolve())})


def stop(folder: FolderOption = HERE, json: JsonFlag = False) -> None:
    """Stop the running node. What was under way goes on when it is started again."""
    at_home(folder)
    from coterie.experiment.node_daemon import SOCKET

    if asked_daemon(folder / SOCKET, {"do": "stop"}) is None:
        raise ConfigError(f"no node runs in {folder.resolve()}; start it with: coterie node start")
    Output(json).result({"stopped": folder}, "the node stops")


def status(folder: FolderOption = HERE, watch: WatchFlag = False, json: JsonFlag = False) -> None:
    """Show the connection, jobs and what they wait for, the budget, what left, and the gain of the last training."""
    at_home(folder)
    from coterie.experiment.node_daemon import SOCKET, node_standing
    from coterie.report.federation_view import node_view

    def now() -> dict[str, Any]:
        return asked_daemon(folder / SOCKET, {"do": "status"}) or node_standing(folder)

    show_status(now, node_view, Output(json), watch)


def leave(
    folder: FolderOption = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonFlag = False,
) -> None:
    """Leave the federation for good: this node's keys are revoked. Its folder stays, with its ledger and egress log."""
    at_home(folder)
    from coterie.experiment.node_daemon import SOCKET
    from coterie.federation.config import NODE_FILE, NodeConfig
    from coterie.federation.frontdoor import ask
    from coterie.federation.identity import Identities
    from coterie.federation.leaving import leaving
    from coterie.federation.membership import Membership

    config, membership = NodeConfig.load(folder / NODE_FILE), Membership.read(folder)
    if not yes and not json and not typer.confirm(f"Leave {membership.federation} for good as {config.name}?"):
        raise ConfigError("nothing was done")
    body = leaving(config.name, membership.fingerprint, Identities.open(folder).identity)
    answer = ask(config.address, folder / "ca.pem", "/coterie/v1/leave", body)
    if b'"refused"' in answer:
        raise PeerError(f"the coordinator at {config.address} refuses: {answer.decode(errors='replace')[:300]}")
    asked_daemon(folder / SOCKET, {"do": "stop"})
    Output(json).result(
        {"left": membership.federation, "name": config.name},
        f"{config.name} has left {membership.federation}; {folder} keeps its ledger and egress log",
    )


# --- policy ----------------------------------------------------------------------------------------------------------


def policy_show(folder: FolderOption = HERE, json: JsonFlag = False) -> None:
    """Show what the policy allows, who is pinned, and what was decided about jobs."""
    loaded = _policy(folder)
    approvals = loaded.approvals
    content = {
        "policy": loaded.model_dump(mode="json"),
        "pinned": loaded.pinned,
        "approved": list(approvals.approved_jobs),
        "stopped": list(approvals.stopped_jobs),
    }
    lines = [f"{key} = {value}" for key, value in content["policy"].items() if key != "peers"]
    lines += ["", *(f"pinned  {name}  {one}" for name, one in sorted(loaded.pinned.items()))]
    lines += [f"approved  {id}" for id in approvals.approved_jobs] + [f"stopped  {id}" for id in approvals.stopped_jobs]
    Output(json).result(content, "\n".join(lines))


def policy_pin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The other node's name.")],
    fingerprint: Annotated[str, typer.Argument(metavar="FINGERPRINT", help="As its own operator has told you.")],
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Pin another node's identity: only pinned ones count, and only they may share a sum with this node."""
    _policy(folder).pin(name, fingerprint)
    Output(json).result({"pinned": {name: fingerprint}}, f"{name} is pinned to {fingerprint}")


def policy_unpin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The other node's name.")],
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Forget a pinned identity; it then counts for nothing."""
    _policy(folder).approvals.unpin(name)
    Output(json).result({"unpinned": name}, f"{name} is not pinned any more")


def policy_approve(job: JobId, folder: FolderOption = HERE, json: JsonFlag = False) -> None:
    """Let a job run here, in all its recurrences, as long as the policy allows it."""
    _policy(folder).approvals.approve(job)
    Output(json).result({"approved": job}, f"{job} may run")


def policy_stop(
    job: JobId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the record here.")] = "",
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Stop a job here, at once and in all its recurrences."""
    _policy(folder).approvals.stop(job, reason)
    Output(json).result(
        {"stopped": job}, f"{job} is stopped here; to let it run again: coterie node policy approve {job}"
    )


def policy_roster(
    accept: Annotated[
        str | None,
        typer.Option("--accept", metavar="DIGEST", help="Accept these members, by the shown digest."),
    ] = None,
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Show the federation's members as the coordinator signed them, and what stands against them here."""
    from coterie.federation.config import NODE_FILE, NodeConfig
    from coterie.federation.identity import Identities
    from coterie.federation.membership import Membership
    from coterie.federation.roster import Roster

    loaded = _policy(folder)
    from coterie.federation.frontdoor import ask

    config, membership = NodeConfig.load(folder / NODE_FILE), Membership.read(folder)
    roster = Roster.open(ask(config.address, folder / "ca.pem", "/coterie/v1/roster"), membership.coordinator)
    if accept is not None:
        if len(accept) < SHOWN or not roster.digest.startswith(accept.casefold()):
            raise ConfigError(
                f"--accept {accept}: the coordinator's roster has the digest {roster.digest[:SHOWN]} now; look at it "
                "again without --accept, then accept what you saw"
            )
        loaded.approvals.approve_roster(roster)
        loaded.approvals.refresh()
    reasons = loaded.roster_refusals(roster, Identities.open(folder).fingerprint)
    members = [{"name": one.name, "fingerprint": one.fingerprint} for one in roster.members]
    Output(json).result(
        {"roster": roster.version, "digest": roster.digest, "members": members, "refusals": reasons},
        f"roster {roster.version} of {membership.federation}, digest {roster.digest[:SHOWN]}",
        *(f"  {one['name']}  {one['fingerprint']}" for one in members),
        *(f"refused: {reason}" for reason in reasons),
        *([] if reasons else ["accepted"]),
    )


# --- egress ----------------------------------------------------------------------------------------------------------


def egress_show(
    last: Annotated[int, typer.Option("--last", metavar="N", min=1, help="How many lines.")] = 20,
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Show the last messages that left this site."""
    from dataclasses import asdict

    from coterie.federation.egress import read

    lines = list(read(_egress(folder)))[-last:]
    shown = [
        f"{one.time}  {one.kind}  {one.bytes:,} bytes{'  masked' if one.masked else ''}: {one.contains}"
        for one in lines
    ]
    Output(json).result({"lines": [asdict(one) for one in lines]}, *(shown or ["nothing has left this site"]))


def egress_verify(folder: FolderOption = HERE, json: JsonFlag = False) -> None:
    """Check that no line of the egress log was altered, removed, added or reordered since it was written."""
    from coterie.federation.egress import verify

    path = _egress(folder)
    found = verify(path)
    if not found.ok:
        raise RunError(f"{path}: {found}")
    anchor = "" if found.anchor is None else f"; to be noted elsewhere: {found.anchor}"
    Output(json).result(
        {"verified": path, "lines": found.lines, "anchor": None if found.anchor is None else str(found.anchor)},
        f"{path}: {found}{anchor}",
    )


def egress_page(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write: .html or .md.")] = Path(
        "egress.html"
    ),
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Write one readable page about everything that has left this site."""
    from coterie.federation.config import NODE_FILE, NodeConfig
    from coterie.files import write_text
    from coterie.report.egress_page import egress_html, egress_markdown

    path, name = _egress(folder), NodeConfig.load(folder / NODE_FILE).name
    render = egress_markdown if output.suffix.casefold() == ".md" else egress_html
    write_text(output, render(path, name))
    Output(json).result({"output": output}, f"wrote {output}")


def _policy(folder: Path) -> Any:
    at_home(folder)
    from coterie.federation.policy import POLICY_FILE, Policy

    return Policy.load(folder / POLICY_FILE)


def _egress(folder: Path) -> Path:
    at_home(folder)
    from coterie.experiment.node_daemon import EGRESS

    path = folder / EGRESS
    if not path.exists():
        raise ConfigError(f"{path}: nothing has left yet, or {folder.resolve()} is not the folder of a node")
    return path

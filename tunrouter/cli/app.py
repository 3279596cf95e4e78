"""The commands and their options. Each command's work is in a file of its own, imported when the command runs.

Law: importing this file costs no more than typer does, since `tunrouter --help` and completion pay for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="One flat, encrypted network for every container on every host, from one shared password.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Check or show the configuration.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")
cni_app = typer.Typer(
    help="Give pods of container runtimes their network.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(cni_app, name="cni")
policy_app = typer.Typer(
    help="Ask what NetworkPolicies permit, and which there are.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(policy_app, name="policy")

# Values are taken as text: the configuration checks them, so that flag, variable and file fail in the same words.
Text = str | None
Peers = Annotated[list[str] | None, typer.Argument(metavar="PEER", help="HOST, HOST:PORT or [IPV6]:PORT.")]
SomePeers = Annotated[list[str], typer.Argument(metavar="PEER", help="HOST, HOST:PORT or [IPV6]:PORT.")]
ConfigFile = Annotated[Text, typer.Option("--config", metavar="FILE", help="[default: /etc/tunrouter/config.toml]")]
Password = Annotated[Text, typer.Option(metavar="SECRET", help="Shared password; better in a file or variable.")]
PasswordFile = Annotated[Text, typer.Option(metavar="FILE", help="One secret a line, up to 4; the first seals.")]
Name = Annotated[Text, typer.Option("--name", "--nickname", metavar="NAME", help="[default: the host's name]")]
Port = Annotated[Text, typer.Option(metavar="PORT", help="UDP port of every node. [default: 6783]")]
Host = Annotated[Text, typer.Option(metavar="ADDRESS", help="Bind to this address only.")]
Iface = Annotated[
    list[str] | None,
    typer.Option(metavar="DEVICE|ADDRESS", help="Use its address alone; of several the first there. [default: all]"),
]
IfaceCanReach = Annotated[Text, typer.Option(metavar="ADDRESS", help="Use what leads there alone.")]
Block = Annotated[
    Text, typer.Option(metavar="NET", help="This node's part of the range, by hand. [default: the nodes decide]")
]
BlockSize = Annotated[Text, typer.Option(metavar="LENGTH", help="Of the blocks the range is cut into. [default: 24]")]
InitPeers = Annotated[Text, typer.Option(metavar="N", help="A majority of N nodes founds the cluster.")]
Seed = Annotated[Text, typer.Option(metavar="A,B,C", help="The 1, 3 or 5 nodes that found the cluster.")]
Observer = Annotated[bool | None, typer.Option("--observer", help="Join a cluster, never found one.")]
IpallocInit = Annotated[
    Text, typer.Option(metavar="MODE", help="As in Weave: consensus, consensus=N, seed=A,B,C or observer.")
]
Range = Annotated[
    Text, typer.Option("--range", "--ipalloc-range", metavar="NET", help="All pods' addresses. [default: 10.32.0.0/12]")
]
Network = Annotated[Text, typer.Option(metavar="NAME", help="Name of the whole network. [default: weave]")]
Mtu = Annotated[Text, typer.Option(metavar="BYTES", help="MTU of pods; 0 fits the underlay. [default: 0]")]
Bridge = Annotated[Text, typer.Option(metavar="DEVICE", help="[default: weave]")]
Tun = Annotated[Text, typer.Option(metavar="DEVICE", help="[default: tunrouter0]")]
Workers = Annotated[Text, typer.Option(metavar="N", help="Processes that move packets, 1 to 64. [default: 1]")]
StateDir = Annotated[Text, typer.Option(metavar="DIR", help="[default: /var/lib/tunrouter]")]
RunDir = Annotated[Text, typer.Option(metavar="DIR", help="[default: /run/tunrouter]")]
CniBinDir = Annotated[Text, typer.Option(metavar="DIR", help="Plugins of container runtimes. [default: /opt/cni/bin]")]
CniConfDir = Annotated[Text, typer.Option(metavar="DIR", help="Networks of theirs. [default: /etc/cni/net.d]")]
MetricsAddr = Annotated[
    Text, typer.Option(metavar="ADDR:PORT", help="Of metrics and health checks, or off. [default: 127.0.0.1:6782]")
]
HealthAddr = Annotated[Text, typer.Option(metavar="ADDR:PORT", help="Of health checks alone, or off. [default: off]")]
Kubernetes = Annotated[bool | None, typer.Option("--kubernetes", help="Be a node of the cluster whose pod this is.")]
Apiserver = Annotated[
    Text, typer.Option(metavar="URL", help="The cluster's API, or HOST:PORT. [default: the pod's variables say]")
]
ExpectNpc = Annotated[
    bool | None, typer.Option("--expect-npc/--no-expect-npc", help="In a cluster: pods wait for weave-npc's policies.")
]
NpcAddr = Annotated[
    Text, typer.Option("--listen", metavar="ADDR:PORT", help="Of metrics and health, or off. [default: 127.0.0.1:6781]")
]
HostFirewall = Annotated[
    bool | None, typer.Option("--host-firewall/--no-host-firewall", help="Let our traffic pass foreign firewalls.")
]
Silent = Annotated[bool | None, typer.Option("--silent", help="Tell strangers nothing, not even what mismatches.")]
Discovery = Annotated[
    bool | None, typer.Option("--discovery/--no-discovery", help="Find other nodes by those that are known.")
]
Bench = Annotated[bool | None, typer.Option("--bench/--no-bench", help="Let peers measure the path to this node.")]
LogLevel = Annotated[Text, typer.Option(metavar="LEVEL", help="debug, info, warning or error. [default: info]")]
LogFormat = Annotated[Text, typer.Option(metavar="FORMAT", help="text or json. [default: text]")]
Socket = Annotated[
    Text, typer.Option("--socket", metavar="PATH", help="The agent's socket. [default: in TUNROUTER_RUN_DIR]")
]
NpcSocket = Annotated[
    Text, typer.Option("--socket", metavar="PATH", help="weave-npc's socket. [default: in TUNROUTER_RUN_DIR]")
]
Output = Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text, wide or json.")]
End = "[NAMESPACE/]POD, an address, or node: the other one's own."
Target = Annotated[
    str,
    typer.Argument(metavar="PID|NETNS|CONTAINER", help="A process, a named namespace, a path to one, or a container."),
]
Interface = Annotated[str, typer.Option(metavar="DEVICE", help="Its name inside the namespace.")]
Exposing = Annotated[
    list[str] | None, typer.Argument(metavar="ADDRESS", help="In this node's blocks. [default: a free one]")
]
Hiding = Annotated[list[str] | None, typer.Argument(metavar="ADDRESS", help="[default: all that are exposed]")]
Containers = Annotated[list[str] | None, typer.Argument(metavar="CONTAINER", help="A name, or an id's first digits.")]
Nodes = Annotated[list[str], typer.Argument(metavar="PEER", help="Name, nickname or id, as in: status ipam")]
Chosen = Annotated[Text, typer.Option("--set", metavar="A,B,C", help="Make these 1, 3 or 5 nodes the electors.")]


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def tunrouter(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="For those who know Weave: it is always so.")] = False,
) -> None:
    pass


@app.command()
def up(
    peers: Peers = None,
    *,
    config: ConfigFile = None,
    password: Password = None,
    password_file: PasswordFile = None,
    name: Name = None,
    port: Port = None,
    host: Host = None,
    iface: Iface = None,
    iface_can_reach: IfaceCanReach = None,
    block: Block = None,
    range: Range = None,  # noqa: A002 (the option's name)
    block_size: BlockSize = None,
    init_peers: InitPeers = None,
    seed: Seed = None,
    observer: Observer = None,
    ipalloc_init: IpallocInit = None,
    network: Network = None,
    mtu: Mtu = None,
    bridge: Bridge = None,
    tun: Tun = None,
    state_dir: StateDir = None,
    run_dir: RunDir = None,
    cni_bin_dir: CniBinDir = None,
    cni_conf_dir: CniConfDir = None,
    metrics_addr: MetricsAddr = None,
    health_addr: HealthAddr = None,
    kubernetes: Kubernetes = None,
    apiserver: Apiserver = None,
    expect_npc: ExpectNpc = None,
    host_firewall: HostFirewall = None,
    workers: Workers = None,
    bench: Bench = None,
    discovery: Discovery = None,
    silent: Silent = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Run the agent in the foreground and join PEERs (at least one node needs none)."""
    flags = dict(locals())
    from tunrouter.cli.up import run

    run(flags)


@app.command()
def npc(
    config: ConfigFile = None,
    name: Name = None,
    npc_addr: NpcAddr = None,
    apiserver: Apiserver = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
) -> None:
    """Enforce a cluster's NetworkPolicies on this node, in the foreground."""
    flags = dict(locals())
    from tunrouter.cli.npc import run

    run(flags)


@app.command()
def status(
    report: Annotated[str | None, typer.Argument(metavar="[peers|connections|targets|ipam|routes|gossip]")] = None,
    output: Output = "text",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew every second until Ctrl-C.")] = False,
    socket: Socket = None,
) -> None:
    """Show what the agent knows, as a summary or one report."""
    from tunrouter.cli.status import run

    run(report, output, socket, watch=watch)


@app.command()
def connect(
    peers: SomePeers,
    replace: Annotated[bool, typer.Option("--replace", help="Make these the only targets.")] = False,
    socket: Socket = None,
) -> None:
    """Add peers to connect to; over restarts, too, until they are forgotten."""
    from tunrouter.cli import targets

    targets.connect(peers, replace, socket)


@app.command()
def forget(peers: SomePeers, socket: Socket = None) -> None:
    """Stop connecting to peers; what is connected stays."""
    from tunrouter.cli import targets

    targets.forget(peers, socket)


@app.command()
def attach(
    target: Target,
    ip: Annotated[str | None, typer.Option(metavar="ADDRESS", help="[default: the next free one]")] = None,
    interface: Interface = "eth0",
    output: Output = "text",
    socket: Socket = None,
) -> None:
    """Join a network namespace to the network and print its address."""
    from tunrouter.cli import attach as command

    command.attach(target, ip, interface, output, socket)


@app.command()
def detach(target: Target, interface: Interface = "eth0", socket: Socket = None) -> None:
    """Take a network namespace off the network."""
    from tunrouter.cli import attach as command

    command.detach(target, interface, socket)


@app.command()
def expose(addresses: Exposing = None, output: Output = "text", socket: Socket = None) -> None:
    """Give this host addresses in the pods' network and print them; they last until they are hidden."""
    from tunrouter.cli import expose as command

    command.expose(addresses or (), output, socket)


@app.command()
def hide(addresses: Hiding = None, socket: Socket = None) -> None:
    """Take exposed addresses off this host again."""
    from tunrouter.cli import expose as command

    command.hide(addresses or (), socket)


@app.command()
def ps(
    containers: Containers = None,
    everywhere: Annotated[bool, typer.Option("--all", help="Of all nodes.")] = False,
    output: Output = "text",
    socket: Socket = None,
) -> None:
    """Show the addresses of this node's containers."""
    from tunrouter.cli import ps as command

    command.ps(containers or (), everywhere, output, socket)


@app.command()
def whois(
    address: Annotated[str, typer.Argument(metavar="IP")], output: Output = "text", socket: Socket = None
) -> None:
    """Show who has an address, on whichever node."""
    from tunrouter.cli import ps as command

    command.whois(address, output, socket)


@app.command()
def rmpeer(
    peers: Nodes,
    force: Annotated[bool, typer.Option("--force", help="Take them from the living, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    output: Output = "text",
    socket: Socket = None,
) -> None:
    """Free the addresses of dead PEERs; any node may do it, and several at once."""
    from tunrouter.cli import blocks

    blocks.rmpeer(peers, force, dry_run, output, socket)


@app.command()
def leave(
    force: Annotated[bool, typer.Option("--force", help="Even while containers use some.")] = False,
    output: Output = "text",
    socket: Socket = None,
) -> None:
    """Hand this node's addresses back, before it goes for good."""
    from tunrouter.cli import blocks

    blocks.leave(force, output, socket)


@app.command()
def electors(chosen: Chosen = None, output: Output = "text", socket: Socket = None) -> None:
    """Show or set the nodes that decide whose a block is."""
    from tunrouter.cli import blocks

    blocks.show_electors(chosen, output, socket)


@app.command()
def reset(
    force: Annotated[bool, typer.Option("--force", help="Stop a running agent first.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Also forget who this node is, and undo cni install.")] = False,
    bridge: Bridge = None,
    tun: Tun = None,
    config: ConfigFile = None,
    socket: Socket = None,
) -> None:
    """Remove everything the agent set up on this host; attached pods lose their network."""
    from tunrouter.cli.reset import run

    run({"bridge": bridge, "tun": tun, "config": config}, force, purge, socket)


@app.command()
def doctor(config: ConfigFile = None, output: Output = "text", socket: Socket = None) -> None:
    """Look for what would stop traffic on this host; exits 1 if something does."""
    from tunrouter.cli.doctor import run

    run({"config": config}, output, socket)


@app.command()
def genkey() -> None:
    """Print a new 256-bit secret for all nodes."""
    from tunrouter.cli.genkey import run

    run()


@app.command()
def bench(
    peer: Annotated[
        str | None, typer.Argument(metavar="[PEER]", help="A connected peer's name, nickname, id or address.")
    ] = None,
    scenario: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated. [default: all]")
    ] = None,
    rounds: Annotated[Text, typer.Option(metavar="N", help="[default: 5; with PEER 1]")] = None,
    seconds: Annotated[Text, typer.Option(metavar="S", help="Of each measurement. [default: 3]")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Everything once, for a second each.")] = False,
    mtu: Annotated[str, typer.Option(metavar="BYTES", help="Of the underlay: 1500 or 9000.")] = "1500",
    offloads: Annotated[str, typer.Option(metavar="MODE", help="Of the underlay's cards: off, gro or on.")] = "off",
    workers: Annotated[Text, typer.Option(metavar="N", help="[default: the agent's]")] = None,
    no_encryption: Annotated[bool, typer.Option("--no-encryption", help="Measure without encryption.")] = False,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
    plot: Annotated[Text, typer.Option(metavar="FILE.png", help="Draw the result, too.")] = None,
    socket: Socket = None,
) -> None:
    """Measure the path to a live PEER, or without one this program in a lab of network namespaces."""
    from tunrouter.cli import bench as command

    names = tuple(scenario or ())
    flags = command.Flags(names, rounds, seconds, quick, mtu, offloads, workers, no_encryption, output, plot)
    if peer is None:
        command.run(flags, socket)
    else:
        command.run_peer(peer, flags, socket)


@app.command()
def ping(
    target: Annotated[str, typer.Argument(metavar="NAME|IP", help="A node, or an address in its blocks.")],
    count: Annotated[Text, typer.Option("--count", "-c", metavar="N", help="[default: until Ctrl-C]")] = None,
    interval: Annotated[str, typer.Option("--interval", "-i", metavar="S", help="Between two. [default: 1]")] = "1",
    wait: Annotated[str, typer.Option("--wait", "-W", metavar="S", help="For each answer. [default: 1]")] = "1",
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
    socket: Socket = None,
) -> None:
    """Measure round trips through the tunnel to a node, and show the path; exits 1 without an answer."""
    from tunrouter.cli.ping import run

    run(target, count, interval, wait, output, socket)


@app.command()
def top(
    interval: Annotated[str, typer.Option("--interval", "-i", metavar="S", help="[default: 1]")] = "1",
    count: Annotated[Text, typer.Option("--count", "-c", metavar="N", help="[default: until Ctrl-C]")] = None,
    once: Annotated[bool, typer.Option("--once", help="As --count 1.")] = False,
    sort: Annotated[str, typer.Option(metavar="COLUMN", help="rate, rtt, loss or name. [default: rate]")] = "rate",
    peers: Annotated[Text, typer.Option("--peers", "-n", metavar="N", help="The first N. [default: all]")] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
    socket: Socket = None,
) -> None:
    """Show what goes to and comes from each peer, live."""
    from tunrouter.cli import top as command

    command.run(command.Flags(interval, count, once, sort, peers), output, socket)


@app.command()
def report(
    template: Annotated[
        Text, typer.Option("--format", "-f", metavar="PATH", help="Only this, as Router.Peers or {{json .IPAM}}.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text (indented) or json.")] = "text",
    config: ConfigFile = None,
    socket: Socket = None,
) -> None:
    """Print all that there is to know in the structure of Weave's report; without an agent what the disk has."""
    from tunrouter.cli.report import run

    run(template, output, {"config": config}, socket)


@app.command()
def sim(
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE|NAME]", help="A scenario: a file, or one of ours.")
    ] = None,
    nodes: Annotated[Text, typer.Option(metavar="N", help="[default: 100, or the scenario's]")] = None,
    seconds: Annotated[Text, typer.Option(metavar="S", help="Of virtual time. [default: 60]")] = None,
    loss: Annotated[Text, typer.Option(metavar="SHARE", help="Of all datagrams, as 0.01. [default: 0]")] = None,
    delay: Annotated[Text, typer.Option(metavar="MS-MS", help="Of links, one way. [default: 1-50]")] = None,
    changes: Annotated[Text, typer.Option(metavar="N", help="Of a node in an hour. [default: 2]")] = None,
    churn: Annotated[Text, typer.Option(metavar="N", help="Nodes that die in a minute. [default: 0]")] = None,
    seed: Annotated[Text, typer.Option(metavar="N", help="The same seed gives the same run. [default: 1]")] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
) -> None:
    """Simulate a cluster: how fast changes spread, what that costs, and how it heals."""
    flags = {
        "nodes": nodes,
        "seconds": seconds,
        "loss": loss,
        "delay": delay,
        "changes": changes,
        "churn": churn,
        "seed": seed,
    }
    from tunrouter.cli.sim import run

    run(file, flags, output)


@config_app.command("check")
def config_check(config: ConfigFile = None) -> None:
    """Check what `up` would run with here: variables and file."""
    from tunrouter.cli import configuration

    configuration.check({"config": config})


@config_app.command("show")
def config_show(config: ConfigFile = None, output: Output = "text") -> None:
    """Show each value and where it comes from; secrets are masked."""
    from tunrouter.cli import configuration

    configuration.show({"config": config}, output)


@cni_app.command("install")
def cni_install(
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the network, as runtimes show it.")] = "tunrouter",
    cni_bin_dir: CniBinDir = None,
    cni_conf_dir: CniConfDir = None,
    exclusive: Annotated[
        bool, typer.Option("--cni-exclusive", help="Rename networks of others that would come first.")
    ] = False,
    state_dir: StateDir = None,
    run_dir: RunDir = None,
    config: ConfigFile = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="FORMAT", help="text or json.")] = "text",
) -> None:
    """Install the plugin and its network: the next pods are ours."""
    from tunrouter.cli import cni

    flags = {"cni_bin_dir": cni_bin_dir, "cni_conf_dir": cni_conf_dir, "state_dir": state_dir, "run_dir": run_dir,
             "config": config}  # fmt: skip
    cni.install(flags, name, exclusive, output)


@cni_app.command("uninstall")
def cni_uninstall(cni_bin_dir: CniBinDir = None, cni_conf_dir: CniConfDir = None, config: ConfigFile = None) -> None:
    """Remove both; pods that run keep their network until they are deleted."""
    from tunrouter.cli import cni

    cni.uninstall({"cni_bin_dir": cni_bin_dir, "cni_conf_dir": cni_conf_dir, "config": config})


@policy_app.command("explain")
def policy_explain(
    source: Annotated[str, typer.Argument(metavar="SRC", help=End)],
    destination: Annotated[str, typer.Argument(metavar="DST", help=End)],
    port: Annotated[str, typer.Argument(metavar="PORT[/PROTOCOL]", help="As 80, 53/udp or 0/icmp. [default: tcp]")],
    output: Output = "text",
    socket: NpcSocket = None,
) -> None:
    """Say whether SRC may open this to DST, and by which policies; exits 1 if it may not."""
    from tunrouter.cli import policy

    policy.explain(source, destination, port, output, socket)


@policy_app.command("list")
def policy_list(output: Output = "text", socket: NpcSocket = None) -> None:
    """Show the cluster's policies and whether they are in force here; exits 1 if they are not."""
    from tunrouter.cli import policy

    policy.show(output, socket)


@app.command()
def version() -> None:
    """Print the version."""
    from tunrouter import __version__

    typer.echo(f"tunrouter {__version__}")


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")]) -> None:
    """Print the completion script of a shell."""
    from tunrouter.cli.completion import run

    run(shell)

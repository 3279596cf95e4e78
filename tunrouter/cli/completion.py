"""`tunrouter completion SHELL`: a script of its own for each shell, made from the commands and options in `app`.

The scripts are static, so a TAB costs the shell no start of Python. The package ships them under `completions/`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import typer

from tunrouter.bench.suite import NAMES
from tunrouter.cli.bench import OFFLOADS
from tunrouter.cli.parser import parser
from tunrouter.cli.settings import one_of
from tunrouter.cli.sim import SCENARIOS
from tunrouter.cli.status import REPORTS
from tunrouter.cli.top import SORTS

SHELLS: Final = ("bash", "zsh", "fish")
FILES: Final = ("--config", "--password-file", "--socket", "--plot")
DIRECTORIES: Final = ("--state-dir", "--run-dir")
DEVICES: Final = ("--bridge", "--tun", "--interface")
CHOICES: Final = {
    "--output": ("text", "wide", "json"),
    "-o": ("text", "wide", "json"),
    "--log-level": ("debug", "info", "warning", "error"),
    "--log-format": ("text", "json"),
    "--ipalloc-init": ("consensus", "observer"),
    "--offloads": OFFLOADS,
    "--scenario": NAMES,
    "--sort": SORTS,
}
ARGUMENTS: Final = {"status": REPORTS, "completion": SHELLS, "sim": SCENARIOS}
NAMESPACED: Final = ("attach", "detach")
"""Commands whose argument is a network namespace."""


class Option(NamedTuple):
    names: tuple[str, ...]
    help: str
    takes_value: bool


class Command(NamedTuple):
    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]
    """What its argument may be."""


def run(shell: str) -> None:
    typer.echo(script(one_of("shell", shell, SHELLS)), nl=False)


def script(shell: str) -> str:
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](_commands())


def _commands() -> list[Command]:
    return [_command(name, each) for name, each in parser().commands.items()]


def _command(name: str, parsed: Any) -> Command:
    options = tuple(
        Option((*parameter.opts, *parameter.secondary_opts), parameter.help or "", not parameter.is_flag)
        for parameter in parsed.params
        if parameter.param_type_name == "option"
    )
    words = tuple(getattr(parsed, "commands", ())) or ARGUMENTS.get(name, ())
    summary = (parsed.help or "").partition("\n")[0].partition(";")[0].rstrip(".")
    return Command(name, summary, (*options, Option(("--help",), "Show help", False)), words)


_BASH: Final = """\
# bash completion for tunrouter
_tunrouter() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} command= word words
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [[ $word != -* ]]; then command=$word; break; fi
    done
    case $previous in
{values}
    esac
    case $command in
{commands}
        *) words="{top}" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _tunrouter tunrouter
"""


def _bash(commands: list[Command]) -> str:
    values = [_bash_value(option, f'-W "{" ".join(words)}"') for option, words in CHOICES.items()]
    values += [_bash_value("|".join(FILES), "-f"), _bash_value("|".join(DIRECTORIES), "-d")]
    values += [_bash_value("|".join(DEVICES), '-W "$(ls /sys/class/net 2>/dev/null)"')]
    cases = [f'        {command.name}) words="{_bash_words(command)}" ;;' for command in commands]
    top = " ".join([*(command.name for command in commands), "--help", "--version"])
    return _BASH.format(values="\n".join(values), commands="\n".join(cases), top=top)


def _bash_value(options: str, action: str) -> str:
    return f'        {options}) COMPREPLY=($(compgen {action} -- "$current")); return ;;'


def _bash_words(command: Command) -> str:
    namespaces = ("$(ls /run/netns 2>/dev/null)",) if command.name in NAMESPACED else ()
    return " ".join([*command.words, *namespaces, *(name for option in command.options for name in option.names)])


_ZSH: Final = """\
#compdef tunrouter
_tunrouter() {{
    local context state line
    _arguments -C '(- *)--help[Show help]' '(- *)--version[Show the version]' '1: :->command' '*:: :->rest'
    case $state in
        command) _values command {names} ;;
        rest)
            case $words[1] in
{commands}
            esac ;;
    esac
}}
_tunrouter "$@"
"""


def _zsh(commands: list[Command]) -> str:
    names = " ".join(f"'{command.name}[{_zsh_text(command.help)}]'" for command in commands)
    cases = []
    for command in commands:
        specs = [_zsh_option(name, option) for option in command.options for name in option.names]
        cases.append(f"                {command.name}) _arguments {' '.join([*specs, _zsh_argument(command)])} ;;")
    return _ZSH.format(names=names, commands="\n".join(cases))


def _zsh_option(name: str, option: Option) -> str:
    return f"'{name}[{_zsh_text(option.help)}]{_zsh_value(name, option)}'"


def _zsh_text(text: str) -> str:
    return text.replace("'", "'\\''").replace("[", "(").replace("]", ")").replace(":", "\\:")


def _zsh_value(name: str, option: Option) -> str:
    if not option.takes_value:
        return ""
    if name in CHOICES:
        return f":value:({' '.join(CHOICES[name])})"
    if name in FILES:
        return ":file:_files"
    if name in DIRECTORIES:
        return ":directory:_files -/"
    return ":device:_files -W /sys/class/net" if name in DEVICES else ":value: "


def _zsh_argument(command: Command) -> str:
    if command.name in NAMESPACED:
        return "'1:namespace:_files -W /run/netns'"
    return f"'1:argument:({' '.join(command.words)})'" if command.words else "'*: : '"


def _fish(commands: list[Command]) -> str:
    lines = ["# fish completion for tunrouter", "complete -c tunrouter -f"]
    for command in commands:
        lines.append(f"complete -c tunrouter -n __fish_use_subcommand -a {command.name} -d {_fish_text(command.help)}")
        within = f"complete -c tunrouter -n '__fish_seen_subcommand_from {command.name}'"
        if command.words:
            lines.append(f"{within} -a '{' '.join(command.words)}'")
        if command.name in NAMESPACED:
            lines.append(f"{within} -a '(ls /run/netns 2>/dev/null)'")
        lines += [f"{within} {_fish_option(option)}" for option in command.options]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
    return f"{names}{_fish_value(option)} -d {_fish_text(option.help)}"


def _fish_value(option: Option) -> str:
    if not option.takes_value:
        return ""
    name = option.names[0]
    if name in CHOICES:
        return f" -x -a '{' '.join(CHOICES[name])}'"
    if name in DEVICES:
        return " -x -a '(ls /sys/class/net)'"
    return " -r -F" if name in FILES + DIRECTORIES else " -x"


def _fish_text(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"

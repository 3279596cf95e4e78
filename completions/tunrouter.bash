# bash completion for tunrouter
_tunrouter() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} command= word words
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        if [[ $word != -* ]]; then command=$word; break; fi
    done
    case $previous in
        --output) COMPREPLY=($(compgen -W "text wide json" -- "$current")); return ;;
        -o) COMPREPLY=($(compgen -W "text wide json" -- "$current")); return ;;
        --log-level) COMPREPLY=($(compgen -W "debug info warning error" -- "$current")); return ;;
        --log-format) COMPREPLY=($(compgen -W "text json" -- "$current")); return ;;
        --ipalloc-init) COMPREPLY=($(compgen -W "consensus observer" -- "$current")); return ;;
        --offloads) COMPREPLY=($(compgen -W "off gro on" -- "$current")); return ;;
        --scenario) COMPREPLY=($(compgen -W "tcp-1 tcp-4 tcp-reverse tcp-both loss-0.1 loss-1 udp-64 udp-1400 rtt memory no-encryption mtu-9000" -- "$current")); return ;;
        --sort) COMPREPLY=($(compgen -W "rate rtt loss name" -- "$current")); return ;;
        --config|--password-file|--socket|--plot) COMPREPLY=($(compgen -f -- "$current")); return ;;
        --state-dir|--run-dir) COMPREPLY=($(compgen -d -- "$current")); return ;;
        --bridge|--tun|--interface) COMPREPLY=($(compgen -W "$(ls /sys/class/net 2>/dev/null)" -- "$current")); return ;;
    esac
    case $command in
        up) words="--config --password --password-file --name --nickname --port --host --iface --iface-can-reach --block --range --ipalloc-range --block-size --init-peers --seed --observer --ipalloc-init --network --mtu --bridge --tun --state-dir --run-dir --cni-bin-dir --cni-conf-dir --metrics-addr --health-addr --kubernetes --apiserver --expect-npc --no-expect-npc --host-firewall --no-host-firewall --workers --bench --no-bench --discovery --no-discovery --silent --log-level --log-format --help" ;;
        npc) words="--config --name --nickname --listen --apiserver --log-level --log-format --help" ;;
        status) words="connections gossip ipam peers routes targets --output -o --watch -w --socket --help" ;;
        connect) words="--replace --socket --help" ;;
        forget) words="--socket --help" ;;
        attach) words="$(ls /run/netns 2>/dev/null) --ip --interface --output -o --socket --help" ;;
        detach) words="$(ls /run/netns 2>/dev/null) --interface --socket --help" ;;
        expose) words="--output -o --socket --help" ;;
        hide) words="--socket --help" ;;
        ps) words="--all --output -o --socket --help" ;;
        whois) words="--output -o --socket --help" ;;
        rmpeer) words="--force --dry-run --output -o --socket --help" ;;
        leave) words="--force --output -o --socket --help" ;;
        electors) words="--set --output -o --socket --help" ;;
        reset) words="--force --purge --bridge --tun --config --socket --help" ;;
        doctor) words="--config --output -o --socket --help" ;;
        genkey) words="--help" ;;
        bench) words="--scenario --rounds --seconds --quick --mtu --offloads --workers --no-encryption --output -o --plot --socket --help" ;;
        ping) words="--count -c --interval -i --wait -W --output -o --socket --help" ;;
        top) words="--interval -i --count -c --once --sort --peers -n --output -o --socket --help" ;;
        report) words="--format -f --output -o --config --socket --help" ;;
        sim) words="churn partition restart-storm --nodes --seconds --loss --delay --changes --churn --seed --output -o --help" ;;
        version) words="--help" ;;
        completion) words="bash zsh fish --help" ;;
        config) words="check show --help" ;;
        cni) words="install uninstall --help" ;;
        policy) words="explain list --help" ;;
        *) words="up npc status connect forget attach detach expose hide ps whois rmpeer leave electors reset doctor genkey bench ping top report sim version completion config cni policy --help --version" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _tunrouter tunrouter

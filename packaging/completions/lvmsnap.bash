# bash completion of lvmsnap: its flags, which bash-completion reads from its --help.
complete -F _longopt lvmsnap

"""The completion scripts of the shells. All ask ``nicplug __complete``, and print what it says."""

from __future__ import annotations

# COMP_WORDS are split at the colons of a MAC address, which bash also wants left out of the replies.
_BASH = r"""# Completion of nicplug for bash: source <(nicplug completion bash)
_nicplug() {
    local line=${COMP_LINE:0:COMP_POINT} word candidate
    local -a words
    # Without -r, read takes the backslashes out that are put in below.
    read -a words <<<"$line"
    [[ $line == *[[:space:]] && $line != *\\[[:space:]] ]] && words+=("")
    word=${words[-1]}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == :files ]]; then
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${word#*=}")
            return
        fi
        COMPREPLY+=("$candidate")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
    local keep=${word%"${word##*[:=]}"} number
    [[ $word == *[:=]* ]] || keep=
    for number in "${!COMPREPLY[@]}"; do
        # A domain's name may be anything, a command as well: it is to stay one word.
        printf -v "COMPREPLY[number]" %q "${COMPREPLY[number]#"$keep"}"
    done
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *:// ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -F _nicplug nicplug
"""

_ZSH = r"""#compdef nicplug
# Completion of nicplug for zsh: source <(nicplug completion zsh), behind compinit; or as _nicplug in fpath
_nicplug() {
    local line
    local -a candidates
    for line in "${(@f)$("${(Q)words[1]}" __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        if [[ $line == :files ]]; then
            _files
            return
        fi
        [[ -n $line ]] || continue
        local name=${line%%$'\t'*} about=
        [[ $line == *$'\t'* ]] && about=${line#*$'\t'}
        candidates+=("${name//:/\\:}${about:+:$about}")
    done
    _describe -V nicplug candidates
}
if [[ $funcstack[1] == _nicplug ]]; then
    _nicplug "$@"
else
    compdef _nicplug nicplug
fi
"""

_FISH = r"""# Completion of nicplug for fish: nicplug completion fish | source
function __nicplug_complete
    set -l words (commandline -opc)
    set -l found ($words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null)
    if test "$found[1]" = :files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found
    end
end
complete -c nicplug -f -k -a '(__nicplug_complete)'
"""

_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def script(shell: str) -> str:
    """Return the completion script of ``bash``, ``zsh`` or ``fish``."""
    return _SCRIPTS[shell]

#compdef lbrun
# completion.zsh: completes lbrun's commands, options, runbooks and runs in zsh.
_lbrun() {
  local -a commands options
  commands=(run plan resume undo settle abandon runs show log explain outbox list describe doctor
    verify-journal netcup worker help)
  options=(
    '*'{-t,--target}'[target or tenant]:target:(ssh\:// local\:)'
    '--targets[more targets, one a line]:file:_files'
    {-P,--parallel}'[targets at a time]:number:'
    '*'{-i,--identity}'[private key]:file:_files'
    '--allow-local-root[change this machine as root]'
    {-p,--params}'[parameters from a file]:file:_files -g "*.json"'
    '--tags[only these steps]:tags:' '--skip-tags[not these steps]:tags:'
    '--request-id[same id, same run]:id:'
    '--check[probe only]' '--diff[show what changes]'
    '--detailed-exitcode[exit 10 when changes are pending]'
    {-y,--yes}'[answer yes]' '--confirm[pass the barrier]:tenant:' '--no-input[never ask]'
    '--on-failure[command to run here]:command:'
    '--done[it took effect]' '--redo[apply it again]' '--fail[it failed]' '--reason[why]:text:'
    '--hours[metrics look back]:number:' '--revoke[end the login at netcup]' '--once[end when nothing more is due]'
    '--json[JSON lines]' '*'{-v,--verbose}'[more detail]' {-q,--quiet}'[less]'
    '--color[colours]:when:(auto always never)' '--journal[journal file]:file:_files'
    {-h,--help}'[help]' '--version[version]'
  )
  if (( CURRENT == 2 )); then
    _alternative "commands:command:($commands)" 'runbooks:runbook:_files -g "*.lua"' && return
  fi
  case $words[2] in
    resume|undo|settle|abandon|show|log|explain)
      _arguments $options "*:run:($(lbrun runs 2>/dev/null | awk '{ print $1 }'))" ;;
    netcup)
      _arguments $options '*:command:(login logout whoami servers server snapshots metrics tasks dns)' ;;
    outbox)
      _arguments $options "*:what:(list send drop $(lbrun outbox 2>/dev/null | awk '$1 ~ /^[0-9a-f]+$/ { print $1 }'))" ;;
    *) _arguments $options '*:runbook:_files -g "*.lua"' ;;
  esac
}
_lbrun "$@"

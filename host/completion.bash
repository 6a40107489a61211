# completion.bash: completes lbrun's commands, options, runbooks and runs in bash.
_lbrun() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} word command=
	local commands="run plan resume undo settle abandon runs show log explain outbox list
		describe doctor verify-journal netcup worker help"
	local options="--target --targets --parallel --identity --allow-local-root --params --tags
		--skip-tags --request-id --check --diff --detailed-exitcode --yes --confirm --no-input
		--on-failure --done --redo --fail --reason --hours --revoke --once --json --verbose --quiet --color --journal
		--help --version"
	COMPREPLY=()
	case $prev in
	-i | --identity | -p | --params | --targets | --journal)
		compopt -o default
		return
		;;
	--color)
		mapfile -t COMPREPLY < <(compgen -W "auto always never" -- "$cur")
		return
		;;
	-t | --target)
		compopt -o nospace
		mapfile -t COMPREPLY < <(compgen -W "ssh:// local:" -- "$cur")
		return
		;;
	esac
	if [[ $cur == -* ]]; then
		mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
		return
	fi
	for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
		if [[ " ${commands//[$'\n\t']/ } " == *" $word "* ]]; then
			command=$word
			break
		fi
	done
	case $command in
	resume | undo | settle | abandon | show | log | explain)
		mapfile -t COMPREPLY < <(compgen -W "$(lbrun runs 2>/dev/null | awk '{ print $1 }')" -- "$cur")
		;;
	netcup)
		mapfile -t COMPREPLY < <(compgen -W "login logout whoami servers server snapshots metrics tasks
			dns" -- "$cur")
		;;
	outbox)
		mapfile -t COMPREPLY < <(compgen -W "list send drop
			$(lbrun outbox 2>/dev/null | awk '$1 ~ /^[0-9a-f]+$/ { print $1 }')" -- "$cur")
		;;
	help) mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$cur") ;;
	runs | doctor | verify-journal | worker) ;;
	*)
		compopt -o filenames
		mapfile -t COMPREPLY < <(
			[ -n "$command" ] || compgen -W "$commands" -- "$cur"
			compgen -f -X '!*.lua' -- "$cur"
			compgen -d -- "$cur"
		)
		;;
	esac
}
complete -F _lbrun lbrun

# What a tenant's server says of itself: its containers, and how full its disks are. It
# reads, and changes nothing.
docker ps -aq | xargs -r docker inspect -f 'container {{.Name}} {{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}} {{with .State.Health}}{{.Status}}{{else}}-{{end}}' &&
	echo containers known
df -Pk / /opt/letsbe /var/lib/docker 2>/dev/null | awk 'NR > 1 { sub(/%/, "", $5); print "disk", $5, $6 }'

#!/bin/sh
# cron.sh of the stand-in: stays, as Nextcloud's does.
trap 'exit 0' TERM
while :; do sleep 3600 & wait $!; done

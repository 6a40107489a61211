#!/bin/sh
# rails.sh of the stand-in, where Chatwoot's image has its entrypoint.
exec python3 -u /app/app.py "$@"

#!/usr/bin/python3
# compose_config.py DIR...: what docker-compose makes of the stack in each folder, by the program
# itself: its schema of the compose specification, then `docker-compose config`. Prints a line
# of JSON for each: { dir, error?, services: { NAME: { VARIABLE: value } }, passwords: { VARIABLE:
# the password in its URL } }.
import contextlib
import io
import json
import os
import sys
from urllib.parse import parse_qs, unquote, urlsplit

import compose.config
import jsonschema
import yaml
from compose.cli.main import main


def password(value):
    url = urlsplit(value)
    query = parse_qs(url.query, keep_blank_values=True)
    return unquote(url.password) if url.password else query["p"][0] if "p" in query else None


def config(folder):
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["docker-compose", "--project-directory", folder, "-f", folder + "/docker-compose.yml",
                "--env-file", folder + "/.env", "config"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main()
        except SystemExit as end:
            status = end.code
    if status:
        raise ValueError(f"docker-compose config ends with {status}: {err.getvalue() or out.getvalue()}")
    return yaml.safe_load(out.getvalue())


# A variable of the shell goes before one of .env.
for name in ("USER", "HOST", "PORT", "TZ", "HOME", "PASSWORD"):
    os.environ.pop(name, None)
with open(os.path.dirname(compose.config.__file__) + "/compose_spec.json", encoding="utf-8") as f:
    validator = jsonschema.Draft7Validator(json.load(f))

for folder in sys.argv[1:]:
    result = {"dir": os.path.basename(folder)}
    try:
        with open(folder + "/docker-compose.yml", encoding="utf-8") as f:
            for error in validator.iter_errors(yaml.safe_load(f)):
                raise ValueError("schema: " + "/".join(map(str, error.path)) + ": " + error.message)
        # It doubles each $ again in what it prints.
        result["services"] = {name: {key: str(value).replace("$$", "$") for key, value in (service.get("environment") or {}).items()}
                              for name, service in config(folder)["services"].items()}
        result["passwords"] = {key: password(value) for service in result["services"].values()
                               for key, value in service.items() if "://" in value and password(value)}
    except (ValueError, OSError, yaml.YAMLError) as problem:
        result["error"] = str(problem)
    print(json.dumps(result))

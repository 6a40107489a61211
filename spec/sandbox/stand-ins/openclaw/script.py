#!/usr/bin/python3
# script.py: stands in for the scripts in /opt/letsbe/scripts. Each call is recorded with the
# SHA-256 of its standard input, never with what stood there.
#   seed-secrets.sh             NAME=value lines -> the Secrets Proxy's registry
#   generate-tool-registry.sh   JSON of the tools -> tool-registry.json
#   hub-register.sh             JSON with the call to make -> the Hub; prints its answer
#   setup.sh                    JSON with the tool to set up; prints {"status": "done"}. Monitors
#                               go to Uptime Kuma's stand-in.
# Exit 0: done; 1: refused; 75: nobody answered.
import hashlib
import json
import os
import sys
import urllib.error
import urllib.request

home = "/home/node/.openclaw"
name = os.path.basename(sys.argv[0])
given = sys.stdin.buffer.read()


def record(**more):
    with open(home + "/calls.jsonl", "a", encoding="utf-8") as f:
        f.write(json.dumps({"script": name, "sha256": hashlib.sha256(given).hexdigest(), "argv": sys.argv[1:], **more}) + "\n")


def call(method, url, body, headers):
    try:
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        return err.code, b""
    except OSError:
        return 0, b""


def end(status, answer=None):
    if status == 0:
        record(outcome="silent")
        print(f"{name}: nobody answered", file=sys.stderr)
        sys.exit(75)
    record(outcome=status)
    if status >= 300:
        print(f"{name}: refused with {status}", file=sys.stderr)
        sys.exit(1)
    print(json.dumps(answer or {"status": status}))


if name == "seed-secrets.sh":
    status, _ = call("PUT", os.environ["SECRETS_PROXY_URL"] + "/registry", given, {"Content-Type": "text/plain"})
    end(status)
elif name == "generate-tool-registry.sh":
    tools = json.loads(given)
    with open(home + "/tool-registry.json.new", "w", encoding="utf-8") as f:
        json.dump(tools, f)
    os.replace(home + "/tool-registry.json.new", home + "/tool-registry.json")
    end(200)
elif name == "hub-register.sh":
    order = json.loads(given)
    status, answer = call(order["method"], order["url"], json.dumps(order["body"]).encode(),
                          {"Content-Type": "application/json", "Authorization": "Bearer " + order["token"],
                           "Idempotency-Key": order["key"]})
    try:
        answer = json.loads(answer)
    except ValueError:
        answer = {}
    end(status, {"status": status, "answer": answer})
elif name == "setup.sh":
    order = json.loads(given)
    if "order" in order:
        # Uptime Kuma's own stand-in takes its monitors as they are.
        token, order = order["pushToken"], order["order"]
        for one in order["monitors"]:
            if "push" in one:
                one["pushToken"] = token + one["push"]
        status, _ = call("POST", order["url"] + "/stand-in/monitors", json.dumps(order).encode(), {"Content-Type": "application/json"})
        end(status)
    else:
        record(tool=order["tool"], outcome="done")
        print(json.dumps({"status": "done"}))

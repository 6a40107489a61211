#!/usr/bin/env python3
# netcup-openapi.py: makes netcup-openapi.json, what the stand-in checks requests against.
#	netcup-openapi.py OPENAPI.json > spec/support/netcup-openapi.json
# Of netcup's own OpenAPI document it keeps what a request must look like: methods, paths,
# parameters, content types and the schemas of bodies. No texts, no examples, no answers.
import json
import sys

KEPT = ("type", "format", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum",
        "maximum", "nullable", "required", "default")

document = json.load(open(sys.argv[1]))
used = {}


def schema(s):
    if "$ref" in s:
        name = s["$ref"].rsplit("/", 1)[1]
        if name not in used:
            used[name] = None
            used[name] = schema(document["components"]["schemas"][name])
        return {"$ref": name}
    out = {k: s[k] for k in KEPT if k in s}
    if "properties" in s:
        out["properties"] = {k: schema(v) for k, v in s["properties"].items()}
    if "items" in s:
        out["items"] = schema(s["items"])
    for word in ("oneOf", "allOf", "anyOf"):
        if word in s:
            out[word] = [schema(x) for x in s[word]]
    return out


operations = {}
for path, item in document["paths"].items():
    for method, o in item.items():
        if method not in ("get", "put", "post", "patch", "delete"):
            continue
        out = {}
        for p in item.get("parameters", []) + o.get("parameters", []):
            if p["in"] in ("path", "query"):
                out.setdefault(p["in"], {})[p["name"]] = schema(p["schema"])
        for kind, content in o.get("requestBody", {}).get("content", {}).items():
            out.setdefault("body", {})[kind] = schema(content.get("schema", {}))
        operations[method.upper() + " " + path] = out

json.dump({
    "source": "netcup's OpenAPI document of the server control panel, GET /scp-core/api/v1/openapi",
    "version": document["info"]["version"],
    "operations": operations,
    "schemas": used,
}, sys.stdout, indent=1, sort_keys=True)
print()

# netcup_check.py: checks a request against netcup-openapi.json: method, path, parameters,
# content type and body. It judges no answers. Stricter than the real thing in one point:
# a property that the document does not have is refused.
import json
import re
import urllib.parse


class Problem:
    def __init__(self, status, field, text):
        self.status, self.field, self.text = status, field, text


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


TYPES = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": is_number,
    "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
}


class Checker:
    def __init__(self, path):
        self.document = json.load(open(path))
        self.operations = []
        for key, operation in self.document["operations"].items():
            method, template = key.split(" ", 1)
            parts = re.split(r"(\{[^}]*\})", template)
            pattern = "".join("(?P<%s>[^/:]+(?::[^/]*)*?)" % p[1:-1] if p.startswith("{") else re.escape(p) for p in parts)
            self.operations.append((method, re.compile(pattern + r"\Z"), operation, template))
        # What has fewer parameters is the more exact one.
        self.operations.sort(key=lambda o: (o[3].count("{"), -len(o[3])))

    def value(self, schema, value, field="body"):
        if "$ref" in schema:
            return self.value(self.document["schemas"][schema["$ref"]], value, field)
        if "oneOf" in schema:
            if sum(self.value(s, value, field) is None for s in schema["oneOf"]) == 1:
                return None
            return "%s: %s is not exactly one of the forms there are" % (field, json.dumps(value)[:100])
        for part in schema.get("allOf", ()):
            problem = self.value(part, value, field)
            if problem:
                return problem
        if value is None:
            return None if schema.get("nullable") else "%s: is null" % field
        kind = schema.get("type")
        if kind and not TYPES[kind](value):
            return "%s: is no %s" % (field, kind)
        if "enum" in schema and value not in schema["enum"]:
            return "%s: %r is none of %s" % (field, value, schema["enum"])
        if isinstance(value, str):
            if len(value) > schema.get("maxLength", 1 << 30) or len(value) < schema.get("minLength", 0):
                return "%s: length" % field
            if "pattern" in schema and not re.search(schema["pattern"], value):
                return "%s: does not match the pattern" % field
        if is_number(value) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return "%s: range" % field
        if schema.get("format") == "int32" and not -(1 << 31) <= value < 1 << 31:
            return "%s: no int32" % field
        if isinstance(value, list):
            if len(value) < schema.get("minItems", 0):
                return "%s: too few items" % field
            for i, item in enumerate(value):
                problem = self.value(schema.get("items", {}), item, "%s[%d]" % (field, i))
                if problem:
                    return problem
        if isinstance(value, dict) and "properties" in schema:
            for name in schema.get("required", ()):
                # Two schemas require what they do not define.
                if name in schema["properties"] and name not in value:
                    return "%s: is missing" % name
            if not value:
                return "%s: is empty" % field
            for name, item in value.items():
                if name not in schema["properties"]:
                    return "%s: is unknown" % name
                problem = self.value(schema["properties"][name], item, name)
                if problem:
                    return problem
        return None

    # A parameter's text as the type that its schema says.
    def text(self, schema, text, field):
        while "$ref" in schema:
            schema = self.document["schemas"][schema["$ref"]]
        value = text
        if schema.get("type") == "integer":
            value = int(text) if re.fullmatch(r"-?[0-9]+", text) else text
        elif schema.get("type") == "boolean":
            value = {"true": True, "false": False}.get(text, text)
        elif schema.get("type") == "array":
            value = [text]
        return self.value(schema, value, field)

    def check(self, method, path, query, kind, body):
        for m, pattern, operation, _ in self.operations:
            match = pattern.match(path) if m == method else None
            if match:
                break
        else:
            return Problem(404, "path", "no such operation")
        for name, text in match.groupdict().items():
            problem = self.text(operation["path"][name], urllib.parse.unquote(text), name)
            if problem:
                return Problem(422, name, problem)
        for name, text in urllib.parse.parse_qsl(query, keep_blank_values=True):
            if name not in operation.get("query", {}):
                return Problem(422, name, "unknown parameter '%s'" % name)
            problem = self.text(operation["query"][name], text, name)
            if problem:
                return Problem(422, name, problem)
        return self.body(method, operation, kind, body)

    def body(self, method, operation, kind, body):
        forms = operation.get("body")
        if not forms:
            if body:
                return Problem(415, "body", "a body where there is none")
            # Seen at the real one: asked for although nothing is sent.
            if method == "POST" and kind != "application/json":
                return Problem(415, "Content-Type", "a POST without a body, and without application/json")
            return None
        if kind not in forms:
            return Problem(415, "Content-Type", "%s is none of %s" % (kind, sorted(forms)))
        try:
            data = json.loads(body)
        except ValueError:
            return Problem(400, "body", "no JSON")
        problem = self.value(forms[kind], data)
        return Problem(422, problem.split(":")[0], problem) if problem else None

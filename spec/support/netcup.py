#!/usr/bin/env python3
# netcup.py: a stand-in for netcup: the Keycloak realm, the server control panel's REST
# interface and the DNS interface, on loopback.
#	netcup.py FOLDER
# Prints "plain PORT" and, where FOLDER has good.pem and good.key, "tls PORT", then "ready";
# ends with its standard input. Below /_/ specs set it, break it and read what it was asked.
# What it does is what is known of the real ones; it is none of them, and what is unknown of
# them (a failed task's look, the text of a 401 for an old token) is made up.
import base64
import json
import os
import re
import secrets
import socket
import ssl
import sys
import threading
import time
import urllib.parse

folder = sys.argv[1]
here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import netcup_servers  # noqa: E402
from netcup_check import Checker  # noqa: E402

lock = threading.RLock()
checker = Checker(os.path.join(here, "netcup-openapi.json"))
SETTINGS = {
    "access_life": 300, "device_life": 600, "interval": 5, "approve": "pending", "rotate": False, "offline": True,
    "id_claim": True, "rdns_missing": 200, "untracked": False, "slow_refresh": 0, "page": 100, "session_life": 900,
}


class Netcup:
    def __init__(self):
        self.set = dict(SETTINGS)
        self.log, self.violations, self.faults = [], [], []
        self.devices, self.access, self.refresh = {}, {}, {}
        self.servers = netcup_servers.Servers()
        self.sessions, self.ccp_times, self.ccp_errors = {}, [], 0
        self.zones = {
            "acme.example": {"ttl": "86400", "records": [
                {"id": "1001", "hostname": "www", "type": "A", "priority": "0", "destination": "198.18.28.137",
                 "deleterecord": False, "state": "yes"}]},
            "empty.example": {"ttl": "86400", "records": []},
        }
        self.next_record = 2000


n = Netcup()


class Answer(Exception):
    def __init__(self, status, body=None, headers=(), kind="application/json"):
        super().__init__(status)
        self.status, self.body, self.headers, self.kind = status, body, list(headers), kind


# Keycloak

def jwt(user):
    def part(data):
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")
    claims = {"exp": int(time.time() + n.set["access_life"]), "sub": "f:0b8d:555001", "preferred_username": user,
              "azp": "scp", "scope": "profile offline_access email"}
    if n.set["id_claim"]:
        claims["id"] = 555001
    return ".".join([part({"alg": "RS256", "typ": "JWT"}), part(claims), secrets.token_urlsafe(43)])


def tokens(refresh=None):
    access = jwt("100000")
    n.access[access] = time.monotonic() + n.set["access_life"]
    answer = {"access_token": access, "expires_in": n.set["access_life"], "refresh_expires_in": 0,
              "token_type": "Bearer", "not-before-policy": 0, "session_state": "7a2f", "scope": "profile offline_access email"}
    if refresh is None or n.set["rotate"]:
        refresh = secrets.token_urlsafe(60)
        n.refresh[refresh] = True
    if n.set["offline"]:
        answer["refresh_token"] = refresh
    return answer


def oauth_error(status, error, text):
    raise Answer(status, {"error": error, "error_description": text})


def token_by_device(form):
    if "device_code" not in form:
        oauth_error(400, "invalid_request", "Missing parameter: device_code")
    d = n.devices.get(form["device_code"])
    if not d:
        oauth_error(400, "invalid_grant", "Device code not valid")
    now = time.monotonic()
    if now > d["until"]:
        oauth_error(400, "expired_token", "Device code is expired")
    early = d["polled"] and now - d["polled"] < n.set["interval"] - 0.05
    d["polled"] = now
    if early or d.pop("slow", False):
        oauth_error(400, "slow_down", "Slow down")
    how = n.set["approve"]
    if isinstance(how, list):
        n.set["approve"] = how[1:] if len(how) > 1 else "approved"
        how = how[0]
    if how == "slow_down":
        oauth_error(400, "slow_down", "Slow down")
    if how == "expired":
        oauth_error(400, "expired_token", "Device code is expired")
    if how == "denied":
        oauth_error(400, "access_denied", "The end user denied the authorization request")
    if how == "pending":
        oauth_error(400, "authorization_pending", "The authorization request is still pending")
    del n.devices[form["device_code"]]
    return tokens()


def keycloak(base, method, path, form, headers):
    issuer = base + "/realms/scp"
    openid = n.set.get("openid", issuer + "/protocol/openid-connect")
    if path == "/.well-known/openid-configuration":
        raise Answer(200, {
            "issuer": n.set.get("issuer", issuer), "token_endpoint": openid + "/token",
            "device_authorization_endpoint": openid + "/auth/device", "revocation_endpoint": openid + "/revoke",
            "userinfo_endpoint": openid + "/userinfo"})
    word = path[len("/protocol/openid-connect/"):]
    if word == "userinfo":
        bearer(headers)
        raise Answer(200, {"id": "555001", "sub": "f:0b8d:555001", "preferred_username": "100000",
                           "email": "user@example.com"})
    if method != "POST" or headers.get("content-type") != "application/x-www-form-urlencoded":
        n.violations.append("%s %s: not a form by POST" % (method, path))
        raise Answer(415, {"error": "invalid_request"})
    if form.get("client_id") != "scp":
        oauth_error(401, "invalid_client", "Invalid client or Invalid client credentials")
    if word == "auth/device":
        if set(form.get("scope", "").split()) != {"offline_access", "openid"}:
            n.violations.append("device: scope %r" % form.get("scope"))
        code = secrets.token_urlsafe(32)
        n.devices[code] = {"until": time.monotonic() + n.set["device_life"], "polled": None}
        raise Answer(200, {
            "device_code": code, "user_code": "ABCD-EFGH", "verification_uri": issuer + "/device",
            "verification_uri_complete": issuer + "/device?user_code=ABCD-EFGH",
            "expires_in": n.set["device_life"], "interval": n.set["interval"]})
    if word == "token" and form.get("grant_type") == "refresh_token":
        if form.get("refresh_token") not in n.refresh:
            oauth_error(400, "invalid_grant", "Offline user session not found")
        raise Answer(200, tokens(form["refresh_token"]))
    if word == "token" and form.get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code":
        raise Answer(200, token_by_device(form))
    if word == "revoke":
        if form.get("token") in n.refresh:
            n.refresh.clear()
            n.access.clear()
        raise Answer(200)
    raise Answer(404, {"error": "not found"})


def bearer(headers):
    value = headers.get("authorization")
    if not value:
        raise Answer(401, {"message": "Authorization header missing."})
    if n.access.get(value[len("Bearer "):], 0) < time.monotonic():
        raise Answer(401, {"message": "Token is not active."})


# The DNS interface: always HTTP 200

def ccp_answer(action, code, short, text, data=""):
    ok = code == 2000
    n.ccp_errors = 0 if ok else n.ccp_errors + 1
    raise Answer(200, {
        "serverrequestid": secrets.token_hex(8), "clientrequestid": "", "action": action,
        "status": "success" if ok else "error", "statuscode": code, "shortmessage": short, "longmessage": text,
        "responsedata": data if ok else ""})


def ccp_records(action, zone, p):
    records = zone["records"]
    wanted = p.get("dnsrecordset", {}).get("dnsrecords")
    if not isinstance(wanted, list):
        ccp_answer(action, 4013, "Validation Error.", "Message is empty.")
    for r in wanted:
        if not r.get("hostname") or not r.get("type") or not r.get("destination"):
            ccp_answer(action, 4013, "Validation Error.", "A record lacks hostname, type or destination.")
        for name in ("id", "priority", "hostname", "type", "destination"):
            if name in r and not isinstance(r[name], str):
                n.violations.append("dns record: %s is no string" % name)
        known = [x for x in records if x["id"] == r.get("id")]
        if r.get("id") and not known:
            ccp_answer(action, 4013, "Validation Error.", "A record with this id does not exist.")
        if r.get("deleterecord"):
            records.remove(known[0])
        elif known:
            known[0].update(hostname=r["hostname"], type=r["type"], destination=r["destination"])
        else:
            n.next_record += 1
            records.append({"id": str(n.next_record), "hostname": r["hostname"], "type": r["type"],
                            "priority": r.get("priority", "0"), "destination": r["destination"],
                            "deleterecord": False, "state": "unknown"})


def ccp(query, body, headers):
    if query != "JSON" or headers.get("content-type") != "application/json":
        n.violations.append("dns: not ?JSON with application/json")
    data = json.loads(body)
    action, p = data.get("action"), data.get("param", {})
    now = time.monotonic()
    n.ccp_times = [t for t in n.ccp_times if now - t < 60] + [now]
    if len(n.ccp_times) > 180:
        ccp_answer(action, 4013, "Validation Error.", "More than 180 requests per minute. Please wait and retry later.")
    if action == n.set.get("dns_limit"):
        del n.set["dns_limit"]
        ccp_answer(action, 4013, "Validation Error.", "More than 180 requests per minute. Please wait and retry later.")
    if n.set.get("dns_many_errors"):
        ccp_answer(action, 4013, "Validation Error.", "Too many error messages, please check your commands.")
    if str(p.get("customernumber")) != "100000" or p.get("apikey") != "api-key-canary-123":
        ccp_answer(action, 4013, "Validation Error.", "The API key is not valid.")
    if action == "login":
        if p.get("apipassword") != "api-password-canary-123":
            ccp_answer(action, 4013, "Validation Error.", "The credentials are not valid.")
        session = secrets.token_urlsafe(30)
        n.sessions[session] = now + n.set["session_life"]
        ccp_answer(action, 2000, "Login successful", "Session has been created successful.", {"apisessionid": session})
    if n.sessions.get(p.get("apisessionid"), 0) < now or n.set.get("dns_no_session"):
        ccp_answer(action, 4001, "Api session id in invalid format", "The session id is not in a valid format.")
    if action == "logout":
        del n.sessions[p["apisessionid"]]
        ccp_answer(action, 2000, "Logout successful", "Session has been terminated successful.", "")
    zone = n.zones.get(p.get("domainname"))
    if not zone:
        ccp_answer(action, 4013, "Validation Error.", "Domain not found or not yours.")
    if action == "updateDnsZone":
        if set(p.get("dnszone", {})) - {"ttl", "refresh", "retry", "expire", "dnssecstatus"}:
            n.violations.append("dns: updateDnsZone with name or serial")
        zone.update(p["dnszone"])
    if action in ("infoDnsZone", "updateDnsZone"):
        ccp_answer(action, 2000, "Zone", "Ok.", {
            "name": p["domainname"], "ttl": zone["ttl"], "serial": "2026010101", "refresh": "28800", "retry": "7200",
            "expire": "1209600", "dnssecstatus": False})
    if action == "updateDnsRecords":
        ccp_records(action, zone, p)
        ccp_answer(action, 2000, "DNS records", "Ok.", {"dnsrecords": zone["records"]})
    if action == "infoDnsRecords":
        if not zone["records"]:
            ccp_answer(action, 5029, "Can not get DNS records for zone", "Can not get DNS records for zone.")
        ccp_answer(action, 2000, "DNS records", "Ok.", {"dnsrecords": zone["records"]})
    ccp_answer(action, 4013, "Validation Error.", "Unknown action.")


# The control of the stand-in

def control(word, body):
    data = json.loads(body) if body else {}
    if word == "reset":
        n.__init__()
    elif word == "set":
        n.set.update(data)
    elif word == "fault":  # { match, status, body, headers, times, delay, drop }
        n.faults.append(data)
    elif word == "expire":  # all access tokens
        n.access.clear()
    elif word == "revoke":
        n.refresh.clear()
        n.access.clear()
    elif word == "sessions":
        n.sessions.clear()
    elif word == "server":
        n.servers.change(data)
    elif word == "tasks":
        n.servers.how.update(data)
    elif word == "log":
        raise Answer(200, {"requests": n.log, "violations": n.violations, "refresh": list(n.refresh),
                           "access": list(n.access), "sessions": list(n.sessions)})
    elif word == "zone":
        raise Answer(200, n.zones[data["zone"]])
    else:
        raise Answer(404)
    raise Answer(200, {})


def fault_of(method, path, body):
    for f in n.faults:
        if re.search(f["match"], "%s %s %s" % (method, path, body.decode("utf-8", "replace"))):
            f["times"] = f.get("times", 1) - 1
            if f["times"] <= 0:
                n.faults.remove(f)
            return f
    return None


def route(base, method, target, headers, body):
    path, _, query = target.partition("?")
    if path.startswith("/_/"):
        return control(path[3:], body)
    form = dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace"))) if path.startswith("/realms/") else {}
    n.log.append({"at": time.monotonic(), "method": method, "path": path, "query": query,
                  "type": headers.get("content-type", ""), "body": body.decode("utf-8", "replace"),
                  "grant": form.get("grant_type", ""), "authorization": headers.get("authorization", "")})
    fault = fault_of(method, path, body)
    if fault:
        if fault.get("drop"):
            return None
        if "status" in fault:
            raise Answer(fault["status"], fault.get("body", {"code": "fault", "message": "Node is in maintenance mode."}),
                         fault.get("headers", ()), fault.get("kind", "application/json"))
    if path.startswith("/realms/scp"):
        return keycloak(base, method, path[len("/realms/scp"):], form, headers)
    if path == "/run/webservice/servers/endpoint.php":
        return ccp(query, body, headers)
    if not path.startswith("/scp-core/api/"):
        raise Answer(404, {"code": "error.notfound", "message": "Resource not found"})
    path = path[len("/scp-core"):]
    if path == "/api/ping":
        if headers.get("accept") == "application/json":
            raise Answer(406)
        raise Answer(200, "OK", kind="text/plain")
    bearer(headers)
    problem = checker.check(method, path, query, headers.get("content-type"), body)
    if problem:
        n.violations.append("%s %s: %s" % (method, target, problem.text))
        raise Answer(problem.status, {"code": "validation.error", "message": "Validation failed",
                                      "errors": [{"field": problem.field, "message": problem.text}]})
    data = json.loads(body) if body else None
    query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    answer = n.servers.answer(method, path[len("/api/v1"):], query, data, n.set)
    headers = ["Location: %s/scp-core/api/v1%s" % (base, h[1]) if h[0] == "Location" else "%s: %s" % h for h in answer[2]]
    raise Answer(answer[0], answer[1], headers)


# HTTP

def read_request(f):
    line = f.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ", 2)
    headers = {}
    while True:
        line = f.readline()
        if line in (b"\r\n", b""):
            break
        name, value = line.decode("latin-1").split(":", 1)
        headers[name.lower()] = value.strip()
    return method, target, headers, f.read(int(headers.get("content-length", "0")))


def serve(c, base, context):
    try:
        if context:
            c = context.wrap_socket(c, server_side=True)
        f = c.makefile("rb")
        while True:
            request = read_request(f)
            if not request:
                return
            method, target, headers, body = request
            if "grant_type=refresh_token" in body.decode("latin-1") and n.set["slow_refresh"]:
                time.sleep(n.set["slow_refresh"])
            try:
                with lock:
                    route(base, method, target, headers, body)
                return  # dropped
            except Answer as answer:
                data = b""
                if answer.body is not None:
                    data = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
                head = "HTTP/1.1 %d x\r\nContent-Length: %d\r\nX-Frame-Options: SAMEORIGIN\r\n" % (answer.status, len(data))
                if data:
                    head += "Content-Type: %s\r\n" % answer.kind
                head += "".join(h + "\r\n" for h in answer.headers) + "\r\n"
                c.sendall(head.encode("latin-1") + data)
    except (OSError, ValueError):
        pass
    finally:
        c.close()


def listen(name, scheme, context):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen(50)
    port = s.getsockname()[1]
    base = "%s://%s:%d" % (scheme, "localhost" if context else "127.0.0.1", port)

    def accept():
        while True:
            c, _ = s.accept()
            threading.Thread(target=serve, args=(c, base, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(name, port)


listen("plain", "http", None)
if os.path.exists(folder + "/good.pem"):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder + "/good.pem", folder + "/good.key")
    listen("tls", "https", tls)
print("ready", flush=True)
sys.stdin.read()

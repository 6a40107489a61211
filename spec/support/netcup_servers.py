# netcup_servers.py: servers, snapshots, images and tasks of the stand-in for netcup.
# A change is a task that passes PENDING, RUNNING and FINISHED, with its steps one by one;
# it takes effect at its end. `how` makes the next task end otherwise. Times are the ones
# that were seen at the real one, multiplied with how["scale"].
import copy
import json
import re
import secrets
import subprocess
import time
import urllib.parse
import uuid

USER = {"id": 555001, "username": "100000", "firstname": "Max", "lastname": "Mustermann", "email": "user@example.com",
        "company": None}

# name of the task, its message, steps, seconds
KINDS = {
    "OFF": ("ServerStateChangeTask", "Server state change is running.",
            ["ServerStateChangeShutdownTaskStep", "ServerStateChangeShutdownTaskStepWait", "ServerStateChangeWriteServerLog"], 4),
    "POWEROFF": ("ServerStateChangeTask", "Server state change is running.", ["ServerStateChangePoweroffTaskStep"], 0.5),
    "ON": ("ServerStateChangeTask", "Server state change is running.",
           ["ServerStateChangeStartTaskStep", "ServerStateChangeStartTaskStepWait"], 2),
    "REBOOT": ("ServerStateChangeTask", "Server state change is running.",
               ["ServerStateChangeShutdownTaskStep", "ServerStateChangeShutdownTaskStepWait", "ServerStateChangeStartTaskStep",
                "ServerStateChangeStartTaskStepWait", "ServerStateChangeWriteServerLog"], 12),
    "CREATE": ("ServerSnapshotCreateTask", "Server snapshot creation is running.",
               ["ServerSnapshotCreateTaskStepCreate", "ServerSnapshotCreateTaskStepCreateWait", "ServerSnapshotCreateLogTaskStep"], 2),
    "DELETE": ("ServerSnapshotDeleteTask", "Snapshot is being deleted.",
               ["ServerSnapshotDeleteTaskStepDeleteSnapshot", "ServerSnapshotDeleteTaskStepLog"], 0),
    "REVERT": ("ServerSnapshotRevertTask", "Snapshot is being restored.",
               ["ServerSnapshotRevertTaskStepPoweroff", "ServerSnapshotRevertTaskStepPoweroffWait",
                "ServerSnapshotRevertTaskStepRevertSnapshot", "ServerSnapshotRevertTaskStepStart"], 6),
    "EXPORT": ("ServerSnapshotExportTask", "Snapshot export is running.",
               ["ServerSnapshotExportTaskStepExport", "ServerSnapshotExportTaskStepExportWait"], 480),
    "IMAGE": ("ServerImageSetupTask", "Image installation is running.",
              ["ServerImageSetupTaskStepPoweroff", "ServerImageSetupTaskStepSetupImage",
               "ServerImageSetupTaskStepSetupImageWait", "ServerImageSetupTaskStepCloudinit"], 108),
    "RESCUE": ("ServerActivateRescueSystemTask", "Rescue system activation is running.",
               ["ServerActivateRescueSystemStepAttachIso", "ServerActivateRescueSystemStepStart"], 15),
    "RESCUE_OFF": ("ServerDeactivateRescueSystemTask", "Rescue system deactivation is running.",
                   ["ServerDeactivateRescueSystemStep"], 5),
    "HOSTNAME": ("ServerHostnameTask", "Hostname change is running.", ["ServerHostnameTaskStep"], 0),
}


class Refused(Exception):
    def __init__(self, status, code=None, message=None, body=None):
        super().__init__(message)
        self.status = status
        self.body = body if body is not None else {"code": code, "message": message}


def stamp(t, digits):
    if t is None:
        return None
    fraction = ("%.9f" % (t % 1))[2:2 + digits]
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ("." + fraction if digits else "") + "Z"


# A number as Java prints it: 1.45E9.
def java(match):
    value = float(match.group())
    if value < 1e7:
        return repr(value)
    digits = repr(value).replace(".", "").rstrip("0")
    return "%s.%sE%d" % (digits[0], digits[1:] or "0", len(repr(value).split(".")[0]) - 1)


def not_found():
    return Refused(404, "error.notfound", "Resource not found")


def live(uefi, ip):
    return {
        "state": "RUNNING", "autostart": True, "uefi": uefi, "bootorder": ["HDD", "NETWORK", "CDROM"],
        "cloudinitAttached": False, "configChanged": True, "coresPerSocket": 1, "cpuCount": 8, "cpuMaxCount": 8, "sockets": 8,
        "currentServerMemoryInMiB": 16384, "maxServerMemoryInMiB": 16384,
        "disks": [{"dev": "vda", "driver": "virtio", "capacityInMiB": 1048576, "allocationInMiB": 1557}],
        "interfaces": [{"mac": "02:00:00:97:47:9f", "driver": "virtio", "mtu": 1500, "speedInMBits": 2500,
                        "rxMonthlyInMiB": 497, "txMonthlyInMiB": 18, "ipv4Addresses": [ip] if ip else [],
                        "ipv6LinkLocalAddresses": ["fe80::ff:fe97:479f"], "ipv6NetworkPrefixes": ["2001:db8:c1:5e9e::/64"],
                        "trafficThrottled": False, "vlanInterface": False, "vlanId": None}],
        "keyboardLayout": "en-us", "latestQemu": True, "machineType": "pc-i440fx-9.2", "nestedGuest": False,
        "osOptimization": "LINUX", "requiredStorageOptimization": "NO", "template": "RS 2000 G12 Pro",
        "uptimeInSeconds": 68763}


def server(number, nickname, uefi, ip):
    name = "v%019d" % number
    return {
        "id": 111000 + number, "name": name, "disabled": False, "hostname": name + ".supersrv.de", "nickname": nickname,
        "template": {"id": 1358, "name": "RS 2000 G12 Pro"}, "architecture": "AMD64", "disksAvailableSpaceInMiB": 7340032,
        "gpuDriverAvailable": False,
        "ipv4Addresses": [{"id": 666006, "ip": ip, "netmask": "255.255.252.0", "gateway": "198.18.28.1",
                           "broadcast": "198.18.31.255"}] if ip else [],
        "ipv6Addresses": [{"id": 666016, "networkPrefix": "2001:db8:c1:5e9e::", "networkPrefixLength": 64, "gateway": "fe80::1"}],
        "maxCpuCount": 8, "rescueSystemActive": False, "serverLiveInfo": live(uefi, ip), "site": {"id": 1, "city": "Nuremberg"},
        "snapshotAllowed": True, "snapshotCount": 0}


def flavours():
    names = [(119, "Debian 13.6.0 BIOS amd64"), (128, "Debian 13.6.0 UEFI amd64"), (129, "Debian 12.14.0 UEFI amd64"),
             (130, "Debian cloudimg 13.6.0 UEFI amd64"), (131, "Debian openclaw 13.6.0 UEFI amd64"),
             (132, "Debian 13.6.0 UEFI arm64"), (115, "Ubuntu 24.04.4 BIOS amd64"), (116, "Ubuntu 24.04.4 UEFI amd64"),
             (117, "Ubuntu 22.04.5 UEFI amd64"), (90, "Debian (11) Bullseye")]
    return [{"id": i, "name": "minimal", "alias": "Minimal", "text": "Minimal image", "image": {"id": i - 90, "name": name}}
            for i, name in names]


class Servers:
    def __init__(self):
        self.all = {s["id"]: s for s in (server(7, "wrk-02", True, "198.18.28.137"), server(3, "old-bios", False, "198.18.28.3"),
                                         server(10, "", True, None))}
        self.snapshots = {i: {} for i in self.all}
        self.passwords, self.rdns = {}, {}
        self.keys = {74847165: {"id": 74847165, "name": "ops", "key": "ssh-ed25519 AAAAC3Nza ops",
                                "createdAt": "2026-08-11T09:29:50.364722Z"}}
        self.next_key = 74847165
        self.tasks = []
        # scale: seconds a second of theirs takes; next: how the next tasks end
        self.how = {"scale": 0.01, "next": [], "ignores_acpi": False}
        # id: a program that does to a real machine what a task says: on, off, reboot, or
        # install with the SSH keys on its standard input. The task ends with it.
        self.machines = {}

    def change(self, data):
        if "many" in data:
            for i in range(data["many"]):
                s = server(1000 + i, "many-%d" % i, True, None)
                self.all[s["id"]] = s
                self.snapshots[s["id"]] = {}
        else:
            s = self.all[data["id"]]
            s["serverLiveInfo"].update(data.get("live", {}))
            s.update(data.get("set", {}))
            if "machine" in data:
                self.machines[s["id"]] = data["machine"]

    def begin(self, kind, s, effect, result=None):
        name, message, steps, seconds = KINDS[kind]
        if kind in ("OFF", "REBOOT") and self.how["ignores_acpi"]:
            seconds = 65
        task = {"uuid": str(uuid.uuid4()), "name": name, "message": message, "steps": [(str(uuid.uuid4()), x) for x in steps],
                "began": time.time(), "seconds": seconds * self.how["scale"], "effect": effect, "result": result or {},
                "kind": kind, "server": s["id"], "how": self.how["next"].pop(0) if self.how["next"] else None, "end": None}
        self.tasks.insert(0, task)
        return 202, self.show(task, 9), []

    def settle(self):
        now = time.time()
        for t in reversed(self.tasks):
            if t["end"] or t["how"] == "HANG" or now < t["began"] + t["seconds"]:
                continue
            end = t["how"] if t["how"] in ("ERROR", "CANCELED", "ROLLBACK") else "FINISHED"
            if end == "FINISHED":
                if "machine" not in t:
                    t["machine"] = self.machine(t)
                if t["machine"] and t["machine"].poll() is None:
                    continue
                if t["machine"] and t["machine"].returncode != 0:
                    end = "ERROR"
                else:
                    t["effect"]()
            t["end"] = end

    def machine(self, t):
        word = {"ON": "on", "OFF": "off", "POWEROFF": "off", "REBOOT": "reboot", "IMAGE": "install"}.get(t["kind"])
        if not word or t["server"] not in self.machines:
            return None
        child = subprocess.Popen([self.machines[t["server"]], word], stdin=subprocess.PIPE, text=True)
        child.stdin.write("".join(self.keys[k]["key"] + "\n" for k in t.get("keys", [])))
        child.stdin.close()
        return child

    def show(self, t, digits, short=False):
        now, seconds = time.time(), max(t["seconds"], 1e-6)
        part = min(1.0, (now - t["began"]) / seconds)
        state = t["end"] or ("PENDING" if part < 0.1 else "RUNNING")
        end = t["began"] + t["seconds"]
        out = {
            "uuid": t["uuid"], "name": t["name"], "state": state, "message": None if state == "FINISHED" else t["message"],
            "startedAt": stamp(t["began"], digits), "finishedAt": stamp(end, digits) if t["end"] else None,
            "executingUser": USER,
            "taskProgress": {"expectedFinishedAt": stamp(end, digits),
                             "progressInPercent": 100.0 if state == "FINISHED" else round(99 * part, 1)}}
        if short:
            return out
        out.update({"responseError": None, "result": t["result"], "serverActionId": None, "steps": []})
        if state == "ERROR":
            out["responseError"] = {"code": "server.task.failed", "message": "The node refused the operation."}
        for i, (step, name) in enumerate(t["steps"]):
            a, b = i / len(t["steps"]), (i + 1) / len(t["steps"])
            done, begun = state == "FINISHED" or part >= b, state == "FINISHED" or part >= max(a, 0.1)
            out["steps"].append({
                "uuid": step, "name": name, "state": "FINISHED" if done else "RUNNING" if begun else "PENDING",
                "startedAt": stamp(t["began"] + a * seconds, digits) if begun else None,
                "finishedAt": stamp(t["began"] + b * seconds, digits) if done else None})
        return out

    def page(self, rows, query, most):
        offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", most)), most)
        return 200, rows[offset:offset + limit], [("X-Total-Count", len(rows))]

    def server(self, text):
        s = self.all.get(int(text))
        if not s:
            raise not_found()
        return s

    def answer(self, method, path, query, body, settings):
        self.settle()
        try:
            for pattern, verbs in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method in verbs:
                    args = [urllib.parse.unquote(x) for x in match.groups()]
                    status, data, headers = verbs[method](self, args, query, body, settings)
                    if status == 202 and settings["untracked"]:
                        data = None
                    return status, data, headers
        except Refused as refused:
            return refused.status, refused.body, []
        return 501, {"code": "stand-in", "message": "%s %s is not simulated" % (method, path)}, []

    # Servers

    def get_servers(self, _, query, __, settings):
        rows = []
        for s in sorted(self.all.values(), key=lambda s: s["id"]):
            ips = [a["ip"] for a in s["ipv4Addresses"]]
            if "name" in query and query["name"] != s["name"] or "ip" in query and query["ip"] not in ips:
                continue
            if "q" in query and not any(query["q"].lower() in x.lower() for x in [s["name"], s["nickname"]] + ips):
                continue
            rows.append({k: s[k] for k in ("id", "name", "disabled", "hostname", "nickname", "template")})
        return self.page(rows, query, settings["page"])

    def get_server(self, args, query, _, __):
        s = copy.deepcopy(self.server(args[0]))
        s["snapshotCount"] = len(self.snapshots[s["id"]])
        if query.get("loadServerLiveInfo") == "false":
            s["serverLiveInfo"] = None
        return 200, s, []

    def patch_server(self, args, query, body, _):
        s = self.server(args[0])
        state, option = body.get("state"), query.get("stateOption")

        def becomes(value):
            return lambda: s["serverLiveInfo"].update(state=value)
        if option not in {"ON": (None, "POWERCYCLE", "RESET"), "OFF": (None, "POWEROFF"), "SUSPENDED": (None,),
                          None: (None,)}[state]:
            raise Refused(400, "server.state.option", "The state option does not fit the state.")
        if "nickname" in body:
            s["nickname"] = body["nickname"]
            return 200, None, []
        if "hostname" in body:
            return self.begin("HOSTNAME", s, lambda: s.update(hostname=body["hostname"]))
        if state == "ON" and option:
            return self.begin("REBOOT", s, becomes("RUNNING"))
        if state == "ON" and s["serverLiveInfo"]["state"] == "RUNNING":
            return 200, None, []
        if state == "OFF" and s["serverLiveInfo"]["state"] == "SHUTOFF":
            return 200, None, []
        if state:
            kind = "POWEROFF" if option == "POWEROFF" else "OFF" if state == "OFF" else "ON"
            return self.begin(kind, s, becomes({"ON": "RUNNING", "OFF": "SHUTOFF", "SUSPENDED": "PAUSED"}[state]))
        return 501, None, []

    # Snapshots

    def check_snapshot(self, s, body):
        errors = []
        prefix = "server.snapshot.create.error."
        if not body.get("onlineSnapshot") and body.get("diskName") not in [d["dev"] for d in s["serverLiveInfo"]["disks"]]:
            errors.append((prefix + "disk", "The disk does not exist."))
        if body.get("onlineSnapshot") and body.get("diskName"):
            errors.append((prefix + "online.diskselected", "No disk may be selected for online snapshots."))
        if body.get("onlineSnapshot") and s["serverLiveInfo"]["uefi"]:
            errors.append((prefix + "online.uefi", "Online snapshots are not possible for servers with UEFI."))
        if s["serverLiveInfo"]["requiredStorageOptimization"] != "NO":
            errors.append((prefix + "storageoptimization", "The storage must be optimised first."))
        return [{"code": c, "message": m} for c, m in errors]

    def dry_run(self, args, _, body, __):
        errors = self.check_snapshot(self.server(args[0]), body)
        return 400 if errors else 200, errors, []

    def get_snapshots(self, args, *_):
        self.server(args[0])
        return 200, [{k: v for k, v in x.items() if k != "downloadInfos"} for x in self.snapshots[int(args[0])].values()], []

    def snapshot(self, args):
        self.server(args[0])
        x = self.snapshots[int(args[0])].get(args[1])
        if not x:
            raise not_found()
        return x

    def get_snapshot(self, args, *_):
        return 200, self.snapshot(args), []

    def create_snapshot(self, args, _, body, __):
        s = self.server(args[0])
        errors = self.check_snapshot(s, body)
        if errors:
            raise Refused(400, body=errors[0])
        taken = self.snapshots[s["id"]]
        if body["name"] in taken:
            raise Refused(400, "server.snapshot.create.error.name", "The name is taken.")
        state = s["serverLiveInfo"]["state"]

        def effect():
            taken[body["name"]] = {
                "uuid": str(uuid.uuid4()), "name": body["name"], "description": body.get("description"), "disks": ["vda"],
                "creationTime": stamp(time.time(), 0), "state": state, "online": body.get("onlineSnapshot", False),
                "exported": False, "exportedSizeInKiB": None, "downloadInfos": None}
        return self.begin("CREATE", s, effect)

    def delete_snapshot(self, args, *_):
        self.snapshot(args)
        return self.begin("DELETE", self.server(args[0]), lambda: self.snapshots[int(args[0])].pop(args[1], None))

    def revert_snapshot(self, args, *_):
        self.snapshot(args)
        s = self.server(args[0])
        return self.begin("REVERT", s, lambda: s["serverLiveInfo"].update(state="RUNNING"))

    def export_snapshot(self, args, *_):
        x = self.snapshot(args)
        if x["state"] != "SHUTOFF":
            raise Refused(400, "server.snapshot.export.wrongstate", "Only snapshots of state 'SHUTOFF' can be exported.")
        info = {"filename": x["name"] + ".qcow2", "presignedUrlValidityDurationInHours": 24, "headers": {},
                "presignedUrl": "https://s3.example/x?signature=" + secrets.token_urlsafe(20)}
        return self.begin("EXPORT", self.server(args[0]),
                          lambda: x.update(exported=True, exportedSizeInKiB=1557, downloadInfos=info))

    # Rescue system, images

    def get_rescue(self, args, *_):
        s = self.server(args[0])
        return 200, {"active": s["rescueSystemActive"], "password": self.passwords.get(s["id"])}, []

    def rescue_on(self, args, *_):
        s = self.server(args[0])
        if s["rescueSystemActive"]:
            raise Refused(400, "server.rescuesystem.active", "The rescue system is already active.")

        def effect():
            s["rescueSystemActive"] = True
            s["serverLiveInfo"]["state"] = "RUNNING"
            self.passwords[s["id"]] = "rescue-canary-" + secrets.token_urlsafe(6)
        return self.begin("RESCUE", s, effect)

    def rescue_off(self, args, *_):
        s = self.server(args[0])
        if not s["rescueSystemActive"]:
            raise Refused(400, "server.rescuesystem.inactive", "The rescue system is not active.")

        def effect():
            s["rescueSystemActive"] = False
            self.passwords.pop(s["id"], None)
        return self.begin("RESCUE_OFF", s, effect)

    def get_flavours(self, args, *_):
        self.server(args[0])
        return 200, flavours(), []

    def install(self, args, _, body, __):
        s = self.server(args[0])
        flavour = [f for f in flavours() if f["id"] == body.get("imageFlavourId")]
        if not flavour:
            raise Refused(422, body={"code": "validation.error", "message": "Validation failed",
                                     "errors": [{"field": "imageFlavourId", "message": "does not exist"}]})
        if [k for k in body.get("sshKeyIds") or [] if k not in self.keys]:
            raise Refused(422, body={"code": "validation.error", "message": "Validation failed",
                                     "errors": [{"field": "sshKeyIds", "message": "does not exist"}]})

        def effect():
            s["serverLiveInfo"]["state"] = "RUNNING"
            s["installed"] = body
            s["hostname"] = body.get("hostname") or s["hostname"]
        answer = self.begin("IMAGE", s, effect, {"rootPassword": "root-canary-" + secrets.token_urlsafe(6),
                                                 "cloudInitResultBase64Encoded": None})
        self.tasks[0]["keys"] = body.get("sshKeyIds") or []
        return answer

    def get_metrics(self, args, query, *_):
        self.server(args[0])
        now = int(time.time()) // 60 * 60
        rows = {}
        for i in range(int(query.get("hours", 6)) * 60):
            values = {"cpu": {"CPU0": 1.8666666666666668e7 + i, "CPU1": 1.45e9},
                      "disk": {"vda Read": 0.0, "vda Write": 0.15},
                      "network": {"02:00:00:97:47:9f IN": 599.3333333333334, "02:00:00:97:47:9f OUT": 260.9166666666667},
                      "network/packet": {"02:00:00:97:47:9f IN": 4.5, "02:00:00:97:47:9f OUT": 3.25}}[args[1]]
            rows[stamp(now - 60 * i, 0)] = values
        return 200, re.sub(r"\d+\.\d+", java, json.dumps(rows)), []

    # rDNS and keys

    def mine(self, ip):
        return ip in [a["ip"] for s in self.all.values() for a in s["ipv4Addresses"]] or ip.startswith("2001:db8:c1:5e9e:")

    def get_rdns(self, args, _, __, settings):
        if not self.mine(args[1]) or (args[1] not in self.rdns and settings["rdns_missing"] == 404):
            raise not_found()
        return 200, {"rdns": self.rdns.get(args[1])}, []

    def set_rdns(self, _, __, body, ___):
        if not self.mine(body["ip"]):
            raise Refused(422, body={"code": "validation.error", "message": "Validation failed",
                                     "errors": [{"field": "ip", "message": "not found"}]})
        self.rdns[body["ip"]] = body["rdns"]
        return 200, None, []

    def delete_rdns(self, args, *_):
        self.rdns.pop(args[1], None)
        return 204, None, []

    def get_keys(self, *_):
        return 200, list(self.keys.values()), []

    def add_key(self, _, __, body, ___):
        self.next_key += 1
        key = {"id": self.next_key, "name": body["name"], "key": body["key"], "createdAt": stamp(time.time(), 9)}
        self.keys[key["id"]] = dict(key, createdAt=stamp(time.time(), 6))
        return 201, key, [("Location", "/users/555001/ssh-keys/%d" % key["id"])]

    def delete_key(self, args, *_):
        if int(args[0]) == 1:
            raise Refused(403, "error.forbidden", "Not yours")
        if int(args[0]) not in self.keys:
            raise Refused(404, "error.notfound", "Resource not found")
        del self.keys[int(args[0])]
        return 204, None, []

    # Tasks

    def get_tasks(self, _, query, __, settings):
        rows = [self.show(t, 6, True) for t in self.tasks if str(t["server"]) == query.get("serverId", str(t["server"]))]
        return self.page([r for r in rows if r["state"] == query.get("state", r["state"])
                          and query.get("q", "").lower() in r["name"].lower()], query, settings["page"])

    def task(self, text):
        for t in self.tasks:
            if t["uuid"] == text:
                return t
        raise not_found()

    def get_task(self, args, *_):
        return 200, self.show(self.task(args[0]), 6), []

    def cancel_task(self, args, *_):
        t = self.task(args[0])
        if t["end"]:
            return 204, None, []
        t["end"] = "CANCELED"
        return 202, self.show(t, 6), []


ROUTES = [
    (r"/servers", {"GET": Servers.get_servers}),
    (r"/servers/(\d+)", {"GET": Servers.get_server, "PATCH": Servers.patch_server}),
    (r"/servers/(\d+)/snapshots:dryrun", {"POST": Servers.dry_run}),
    (r"/servers/(\d+)/snapshots", {"GET": Servers.get_snapshots, "POST": Servers.create_snapshot}),
    (r"/servers/(\d+)/snapshots/([^/]+)", {"GET": Servers.get_snapshot, "DELETE": Servers.delete_snapshot}),
    (r"/servers/(\d+)/snapshots/([^/]+)/revert", {"POST": Servers.revert_snapshot}),
    (r"/servers/(\d+)/snapshots/([^/]+)/export", {"POST": Servers.export_snapshot}),
    (r"/servers/(\d+)/rescuesystem",
     {"GET": Servers.get_rescue, "POST": Servers.rescue_on, "DELETE": Servers.rescue_off}),
    (r"/servers/(\d+)/imageflavours", {"GET": Servers.get_flavours}),
    (r"/servers/(\d+)/image", {"POST": Servers.install}),
    (r"/servers/(\d+)/metrics/(cpu|disk|network|network/packet)", {"GET": Servers.get_metrics}),
    (r"/rdns/(ipv[46])/([^/]+)", {"GET": Servers.get_rdns, "DELETE": Servers.delete_rdns}),
    (r"/rdns/ipv[46]", {"POST": Servers.set_rdns}),
    (r"/users/555001/ssh-keys", {"GET": Servers.get_keys, "POST": Servers.add_key}),
    (r"/users/555001/ssh-keys/(\d+)", {"DELETE": Servers.delete_key}),
    (r"/tasks", {"GET": Servers.get_tasks}),
    (r"/tasks/([0-9a-f-]+)", {"GET": Servers.get_task}),
    (r"/tasks/([0-9a-f-]+):cancel", {"PUT": Servers.cancel_task}),
]

#!/usr/bin/python3
# bench.py: lbrun against an Ansible playbook, against the runbook's own shell and against
# plain ssh, on throwaway VPSs of this machine, all in one run. It prints figures and judges
# none: a goal that is missed is a line in the table, not a failure.
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
os.chdir(ROOT)
VPS = "spec/sandbox/vps"
DIR = os.path.join(ROOT, "build/bench")
with open("modules/lua/catalog.lua", encoding="utf-8") as text:
    NGINX = re.search(r'nginx = { image = "([^"]+)"', text.read()).group(1)
FILES = [
    "/etc/fail2ban/jail.d/lbrun-sshd.local", "/opt/letsbe/nginx/docker-compose.yml",
    "/opt/letsbe/nginx/conf/nginx.conf", "/opt/letsbe/nginx/sites/00-fallback.conf",
    "/etc/ufw/after.rules", "/home/letsbe-admin/.ssh/authorized_keys",
    "/etc/sudoers.d/90-lbrun-letsbe-admin", "/etc/ssh/sshd_config.d/00-lbrun.conf",
    "/etc/apt/apt.conf.d/20auto-upgrades", "/etc/apt/apt.conf.d/50unattended-upgrades",
]
up = []  # the VPSs that are ours
peak = 0  # KiB, the largest lbrun so far


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure(command, env=None, fine=(0,), stdin=None):
    """Runs it -> seconds, peak KiB, output."""
    out = tempfile.TemporaryFile()
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=stdin or subprocess.DEVNULL, stdout=out,
                             stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    _, status, usage = os.wait4(child.pid, 0)
    took = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    out.seek(0)
    text = out.read().decode(errors="replace")
    with open(os.path.join(DIR, "log"), "a", encoding="utf-8") as log:
        log.write(f"$ {' '.join(command)}\n{text}\n({took:.3f} s, status {child.returncode})\n")
    if child.returncode not in fine:
        sys.exit(f"{command[0]} ended with status {child.returncode}, see build/bench/log:\n{text[-2000:]}")
    return took, usage.ru_maxrss, text


def vps(*words):
    return measure([VPS, *words])[2]


class Server:
    def __init__(self, name):
        self.name = name
        up.append(name)
        vps("up", name, "--images", NGINX)
        self.address, self.key, self.known = (vps(word, name).strip() for word in
                                              ("address", "key", "known-hosts"))
        with open(self.key + ".pub", encoding="ascii") as f:
            self.public = f.read().strip()
        self.fingerprint = next(line.split()[1] for line in
                                measure(["ssh-keygen", "-lf", self.known])[2].splitlines()
                                if "ED25519" in line)

    def down(self):
        vps("down", self.name)
        up.remove(self.name)

    def options(self):
        return ["-F", "/dev/null", "-i", self.key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
                "-o", f"UserKnownHostsFile={self.known}", "-o", "GlobalKnownHostsFile=/dev/null",
                "-o", "LogLevel=ERROR"]

    def lbrun(self, user, port, runbook, *params):
        """-> seconds, output. Exit 3 is done with warnings: a VPS here is smaller than its tier."""
        global peak
        took, kib, text = measure(
            ["./lbrun", runbook, *params, "--journal", os.path.join(DIR, "journal.db"), "--no-input",
             "-i", self.key, "-t", f"ssh://{user}@{self.address}:{port}?fingerprint={self.fingerprint}"],
            env={"HOME": os.path.join(DIR, "home")}, fine=(0, 3))
        peak = max(peak, kib)
        return took, text

    def provision(self, user, port):
        return self.lbrun(user, port, "runbooks/provision.lua", "tenant=bench", "domain=bench.example",
                          "docker_source=distro", "acme=self-signed",
                          f"admin_ssh_public_key={self.public}")

    def shell(self):
        with open("spec/bench/setup.sh", "rb") as script:
            return measure(["ssh", *self.options(), f"root@{self.address}",
                            f"bash -s -- '{self.public}' {NGINX}"], stdin=script)[0]

    def fetch(self):
        """The files whose content the playbook describes."""
        for path in FILES:
            to = DIR + "/files" + path
            os.makedirs(os.path.dirname(to), exist_ok=True)
            data = subprocess.run([VPS, "exec", self.name, "--", "cat", path], check=True,
                                  stdout=subprocess.PIPE).stdout
            with open(to, "wb") as f:
                f.write(data)

    def ansible(self):
        """-> seconds, number of changes. A connection of its own each time, pipelining on."""
        control = tempfile.mkdtemp(dir=DIR)
        took, _, text = measure(
            ["ansible-playbook", "-i", f"{self.address},", "-u", "letsbe-admin", "-e",
             f"files={DIR}/files ansible_port=22022 ansible_python_interpreter=/usr/bin/python3",
             "spec/bench/playbook.yml"],
            env={"ANSIBLE_PIPELINING": "1", "ANSIBLE_SSH_CONTROL_PATH_DIR": control,
                 "ANSIBLE_CONFIG": DIR + "/ansible.cfg", "LC_ALL": "C.UTF-8",
                 "ANSIBLE_SSH_ARGS": " ".join(self.options()) +
                 " -o ControlMaster=auto -o ControlPersist=10s"})
        return took, int(re.search(r"changed=(\d+)", text).group(1))

    def controlmaster(self, count):
        socket = tempfile.mkdtemp(dir="/tmp") + "/s"
        command = ["ssh", *self.options(), "-o", "ControlMaster=auto", "-o", "ControlPersist=5",
                   "-o", f"ControlPath={socket}", "-p", "22022", f"letsbe-admin@{self.address}", "true"]
        began = time.monotonic()
        for _ in range(count):
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took = time.monotonic() - began
        subprocess.run([*command[:-2], "-O", "exit", *command[-2:-1]], check=False,
                       stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(os.path.dirname(socket))
        return took


def shell_on_bare(name):
    server = Server(name)
    took = server.shell()
    server.down()
    return took


def changes(text):
    return int(re.search(r"(\d+) changed", text).group(1))


def first_provisioning(rounds):
    say("one provisioning by shell that does not count, so that every package is in the cache")
    shell_on_bare("bench-warm")
    ours, theirs, server = [], [], None
    for i in range(1, rounds + 1):
        if i % 2 == 0:
            theirs.append(shell_on_bare(f"bench-shell{i}"))
        if server:
            server.down()
        server = Server(f"bench-lbrun{i}")
        ours.append(server.provision("root", 22)[0])
        if i % 2 == 1:
            theirs.append(shell_on_bare(f"bench-shell{i}"))
        say(f"first provisioning, round {i} of {rounds}: lbrun {ours[-1]:.1f} s, shell {theirs[-1]:.1f} s")
    return statistics.median(ours), statistics.median(theirs), server


def no_change(server):
    server.fetch()
    server.ansible()
    ours, theirs = [], []
    for i in range(3):
        took, text = server.provision("letsbe-admin", 22022)
        if changes(text) != 0:
            sys.exit("lbrun found something to change after the playbook: they do not describe one state")
        ours.append(took)
        took, changed = server.ansible()
        if changed != 0:
            sys.exit("the playbook changes something each time: they do not describe one state")
        theirs.append(took)
        say(f"no change, {i + 1} of 3: lbrun {ours[-1]:.2f} s, Ansible {theirs[-1]:.2f} s")
    return statistics.median(ours), statistics.median(theirs)


def fifty(server):
    ours, theirs = [], []
    for _ in range(5):
        ours.append(server.lbrun("letsbe-admin", 22022, "spec/bench/fifty.lua", "mode=apply")[0])
        theirs.append(server.controlmaster(50))
    return statistics.median(ours), statistics.median(theirs)


def step_cost(server):
    """Milliseconds that a step adds to its command when it finds nothing to do."""
    count, costs = 200, []
    for _ in range(5):
        steps = server.lbrun("letsbe-admin", 22022, "spec/bench/fifty.lua", "mode=probe", f"count={count}")[0]
        bare = server.lbrun("letsbe-admin", 22022, "spec/bench/fifty.lua", "mode=raw", f"count={count}")[0]
        costs.append((steps - bare) / count * 1000)
    return statistics.median(costs)


def start_up():
    """Milliseconds of lbrun --version, and of curl's, which loads most of the same libraries."""
    took = {"./lbrun": [], "curl": []}
    for _ in range(50):
        for program, times in took.items():
            began = time.monotonic()
            subprocess.run([program, "--version"], check=True, stdout=subprocess.DEVNULL)
            times.append((time.monotonic() - began) * 1000)
    return tuple(statistics.median(times) for times in took.values())


def arguments():
    parser = argparse.ArgumentParser(
        prog="bench.py", description="Measures lbrun against Ansible, the runbook's own shell and ssh, "
        "on throwaway VPSs of this machine, as ratios in one run. Root is needed; `make bench` "
        "installs what it needs and builds lbrun. The table is kept in build/bench/result.txt.")
    parser.add_argument("--rounds", type=int, default=os.environ.get("LBRUN_BENCH_ROUNDS", "3"), metavar="N",
                        help="how often each side provisions a bare server, in turns "
                        "(default: $LBRUN_BENCH_ROUNDS, else 3)")
    given = parser.parse_args()
    if given.rounds < 1:
        parser.error("--rounds: at least one")
    for program, source in (("./lbrun", "make"), ("ansible-playbook", "make bench"), ("ssh", "make deps")):
        if not shutil.which(program):
            parser.exit(1, f"bench.py: {program} is missing, so there is nothing to compare; get it with: {source}\n")
    if os.geteuid() != 0:
        parser.exit(1, "bench.py: a VPS is booted by root alone; run it with: sudo make bench\n")
    return given


def main(given):
    shutil.rmtree(DIR, ignore_errors=True)
    os.makedirs(DIR + "/home")
    # No configuration of this machine's user takes part.
    with open(DIR + "/ansible.cfg", "w", encoding="ascii") as f:
        f.write("[defaults]\n")
    version, curl = start_up()
    first_ours, first_theirs, server = first_provisioning(given.rounds)
    same_ours, same_theirs = no_change(server)
    fifty_ours, fifty_theirs = fifty(server)
    step = step_cost(server)

    rows = [("", "lbrun", "other", "ratio", "goal", "")]

    def compared(what, ours, theirs, other, goal):
        ratio = ours / theirs
        rows.append((what, f"{ours:.2f} s", f"{theirs:.2f} s {other}", f"{ratio:.3f}", f"<= {goal}",
                     "met" if ratio <= goal else "MISSED"))

    def limited(what, value, unit, goal, other=""):
        rows.append((what, f"{value:.1f} {unit}", other, "", f"<= {goal} {unit}",
                     "met" if value <= goal else "MISSED"))

    compared("provisioning, nothing to do", same_ours, same_theirs, "Ansible", 0.1)
    compared("first provisioning", first_ours, first_theirs, "shell", 1.0)
    compared("50 commands with connection", fifty_ours, fifty_theirs, "ssh, ControlMaster", 0.5)
    limited("journaled step beyond its command", step, "ms", 2)
    limited("lbrun --version", version, "ms", 10, f"{curl:.1f} ms curl --version")
    limited("peak memory, one target", peak / 1024, "MB", 24)
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    table = "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows)
    print(table)
    with open(DIR + "/result.txt", "w", encoding="ascii") as f:
        f.write(table + "\n")


options = arguments()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
try:
    main(options)
finally:
    for each in list(up):
        subprocess.run([VPS, "down", each], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

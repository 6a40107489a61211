-- certs_spec.lua: certificates of step 9 and runbooks/certs.lua, with certbot and pebble, a
-- real ACME server; pebble-challtestsrv stands in for the internet's DNS, and the images are
-- stand-ins. How DNS answers and certbot's complaints are judged is in spec/lua.
local support = require "support.lbrun"
local acme = require "support.acme"
local vps = require "support.vps"
local provision = require "support.provision"
local background = require "support.background"

describe("certificates #vps #slow", function()
  local server, home, ca, serial
  local tool = "status.acme.example"
  setup(function()
    server = vps.up("certs", { docker = true, images = { provision.images[1], "louislam/uptime-kuma:2.5.0" } })
    home = support.home()
    server:exec "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends certbot dnsutils"
    local bridge = server.address:gsub("%d+$", "1")
    ca = acme.dns(bridge, home.dir)
    ca:authority()
    server:exec(("mkdir -p /etc/letsbe; cat >/etc/letsbe/ca.pem; echo nameserver %s >/etc/resolv.conf"):format(bridge),
      { stdin = support.slurp(ca.ca) })
  end)
  teardown(function()
    if ca then ca:stop() end
    if server then server:down() end
    if home then home.remove() end
  end)

  local function run(opts)
    opts = opts or {}
    local args = provision.args(server, { more = ("--json --tags nginx,stacks tools=uptime-kuma acme_directory=%s acme_ca=%s")
      :format(ca.directory, opts.ca or "/etc/letsbe/ca.pem") }):gsub("acme=self%-signed", "acme=" .. (opts.method or "http-01"))
    local r = home.json(args)
    assert.equal("done", r.last.status, r.err)
    assert.equal(#r.last.warnings > 0 and 3 or 0, r.exit)
    local others = {}
    for _, text in ipairs(r.last.warnings) do
      if not text:find("smaller than its tier", 1, true) then others[#others + 1] = text end
    end
    return r, table.concat(others, "\n")
  end

  local function certs(more)
    local r = home.json(("runbooks/certs.lua -t %s -i %s --json --no-input %s"):format(server.url, server.key, more or ""))
    r.shown = {}
    for _, line in ipairs(r.lines) do
      if line.type == "log" then r.shown[#r.shown + 1] = line.text end
    end
    r.shown = table.concat(r.shown, "\n")
    return r
  end

  -- A reload of nginx takes a moment after it was asked for.
  local function eventually(look, fine)
    local seen
    for _ = 1, 50 do
      seen = look()
      if fine(seen) then break end
      support.sh "sleep 0.2"
    end
    return seen
  end

  -- As a visitor: status of the answer, its headers; "" when the certificate is not fine.
  local function visit(name, root)
    return support.sh(("curl -s -D - -o /dev/null --max-time 10 %s --resolve %s:443:%s https://%s/")
      :format(root and "--cacert " .. root or "-k", name, server.address, name))
  end
  local function trusted(name)
    return eventually(function() return visit(name, ca.root) end, function(seen)
      return seen:lower():find("strict-transport-security: max-age=", 1, true)
    end):lower()
  end
  local function serial_at(name, old)
    return eventually(function() return support.sh(("openssl s_client -connect %s:443 -servername %s </dev/null 2>/dev/null | openssl x509 -noout -serial")
      :format(server.address, name)) end, function(seen) return seen ~= old end)
  end

  it("without DNS: a certificate of our own, a warning that says why, and nginx answers; no HSTS", function()
    local _, warned = run()
    assert.matches("no certificate of a CA for acme.example.*acme.example: it does not resolve; " .. tool .. ": it does not resolve", warned)
    assert.matches("^HTTP/%S+ 200", visit "acme.example")
    assert.is_nil(visit("acme.example"):lower():find("strict-transport-security", 1, true))
  end)

  it("while the CA is down: the same, the reason named, and the second try is the next run's", function()
    ca:point("acme.example", server.address)
    ca:point(tool, server.address)
    local r, warned = run()
    assert.matches("no new certificate of https://%S+ for acme.example, " .. tool, warned)
    assert.matches("[Cc]onnection refused", warned)
    -- It was asked twice, not once and not again and again.
    assert.equal("2\n", (server:exec "cat /var/log/letsencrypt/letsencrypt.log* | grep -c 'Arguments: .*--cert-name'"))
    assert.matches("^HTTP/%S+ 200", visit "acme.example")
    assert.matches("^HTTP/%S+ [23]", visit(tool))
    assert.is_nil(visit(tool):lower():find("strict-transport-security", 1, true))
    assert.is_true(r.last.changed > 0)
  end)

  it("does not trust a CA whose own TLS nobody vouches for", function()
    ca:issue()
    local _, warned = run { ca = "/etc/ssl/certs/ca-certificates.crt" }
    assert.matches("certificate verify failed", warned)
    assert.equal("", server:exec "ls /etc/letsencrypt/live 2>/dev/null")
  end)

  it("leaves out, and names, what does not lead to this server; the rest is served with the CA's certificate", function()
    ca:point(tool, nil)
    ca:point(tool, "192.0.2.7")
    local _, warned = run()
    assert.matches("left out of the certificate of acme.example.*" .. tool .. ": it leads to 192.0.2.7, not to this server %("
      .. server.address, warned)
    local seen = trusted "acme.example"
    assert.matches("^http/%S+ 200", seen)
    assert.matches("strict%-transport%-security: max%-age=", seen)
    assert.matches("mailto:ssl@acme.example", server:exec "cat /var/log/letsencrypt/letsencrypt.log*", 1, true)
    assert.equal("", visit(tool, ca.root))
    assert.matches("^HTTP/%S+ [23]", visit(tool))
    assert.is_nil(visit(tool):lower():find("strict-transport-security", 1, true))
  end)

  it("adds the name when it leads here, in one certificate, and then finds nothing to do", function()
    ca:point(tool, nil)
    ca:point(tool, server.address)
    local r, warned = run()
    assert.equal("", warned)
    assert.is_true(r.last.changed > 0)
    for _, name in ipairs { "acme.example", tool } do
      local seen = trusted(name)
      assert.matches("^http/%S+ [23]", seen)
      assert.matches("strict%-transport%-security: max%-age=", seen)
    end
    serial = serial_at "acme.example"
    assert.equal(serial, serial_at(tool))
    assert.equal("acme.example\n", (server:exec "cd /etc/letsencrypt/live && ls -d */ | tr -d /"))
    r, warned = run()
    assert.equal("", warned)
    assert.equal(0, r.last.changed)
  end)

  it("speaks TLS 1.2 and 1.3 with forward secrecy, and nothing older or weaker", function()
    local function agreed(words)
      return support.sh(("openssl s_client -connect %s:443 -servername %s %s </dev/null 2>&1 | sed -n 's/^New, .*Cipher is //p'"):format(
        server.address, tool, words))
    end
    assert.matches("^TLS_", agreed "-tls1_3")
    assert.matches("^ECDHE%-", agreed "-tls1_2")
    for _, words in ipairs { "-tls1_1 -cipher ALL:@SECLEVEL=0", "-tls1_2 -cipher AES128-GCM-SHA256", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA" } do
      assert.equal("(NONE)\n", agreed(words), words)
    end
  end)

  it("answers a challenge on port 80 and sends everything else to HTTPS", function()
    server:exec("mkdir -p /opt/letsbe/nginx/webroot/.well-known/acme-challenge; "
      .. "echo proof >/opt/letsbe/nginx/webroot/.well-known/acme-challenge/token")
    local function get(path)
      return support.sh(("curl -s -w ' %%{http_code} %%{redirect_url}' --resolve %s:80:%s http://%s%s"):format(tool, server.address, tool, path))
    end
    assert.equal("proof\n 200 ", get "/.well-known/acme-challenge/token")
    assert.matches(" 404 $", get "/.well-known/acme-challenge/other")
    assert.matches(" 301 https://status.acme.example/x%?y=1$", get "/x?y=1")
  end)

  it("has one renewer, which works as systemd starts it", function()
    assert.matches("\n1 timers listed", server:exec "systemctl list-timers --all '*certbot*' '*renew*' '*acme*'")
    assert.matches("REQUESTS_CA_BUNDLE=/etc/letsbe/ca.pem", server:exec "systemctl show -p Environment certbot.service")
    -- Another package's, and what somebody once put into cron.
    server:exec("printf '[Timer]\\nOnCalendar=daily\\n[Install]\\nWantedBy=timers.target\\n' >/etc/systemd/system/certbot-renew.timer; "
      .. "printf '[Service]\\nExecStart=true\\n' >/etc/systemd/system/certbot-renew.service; systemctl enable -q --now certbot-renew.timer")
    server:exec "echo '0 3 * * * root certbot renew --nginx' >/etc/cron.d/old-renewal"
    local r, warned = run()
    assert.matches("/etc/cron.d/old%-renewal starts certbot too", warned)
    assert.equal(1, r.last.changed)
    assert.equal("inactive\n", (server:exec "systemctl is-active certbot-renew.timer; rm /etc/cron.d/old-renewal"))
    assert.equal("active\n", (server:exec "systemctl is-active certbot.timer"))
  end)

  it("shows names, issuer and days, and renews nothing that is not due", function()
    local r = certs()
    assert.equal(0, r.exit, r.err)
    assert.matches("acme.example, " .. tool .. ": issued by .*Pebble Intermediate CA.*, ends in 1%d%d%d days", r.shown)
    assert.equal(0, r.last.changed)
    assert.equal(serial, serial_at(tool))
  end)

  it("renews by force, and nginx shows the new one", function()
    local r = certs "force=true"
    assert.equal(0, r.exit, r.err)
    assert.equal(1, r.last.changed)
    local now = serial_at(tool, serial)
    assert.is_true(now ~= serial and now:find "serial=" ~= nil, now)
    assert.matches("^http/%S+ [23]", trusted(tool))
    serial = now
  end)

  it("tries once more when the CA was out for a moment", function()
    local way = "OUTPUT -p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
    server:exec("iptables -I " .. way .. "; rm -f /var/log/letsencrypt/*")
    local bg = background.start(home, ("runbooks/certs.lua -t %s -i %s --json --no-input force=true"):format(server.url, server.key))
    server:exec("for i in $(seq 600); do grep -qs 'Connection refused' /var/log/letsencrypt/letsencrypt.log && break; sleep 0.2; done; iptables -D "
      .. way)
    local last = bg:finish()
    assert.equal(0, last.exit, last.message)
    assert.equal(1, last.changed)
    local now = serial_at(tool, serial)
    assert.is_true(now ~= serial and now:find "serial=" ~= nil, now)
    serial = now
  end)

  it("warns 14 days before the end, and renews what is due by certbot's own configuration", function()
    -- A certificate of the same names that began 85 days ago and has 5 days left.
    server:exec([[
cd /etc/letsencrypt/archive/acme.example; n=$(ls | sed -n 's/^cert\([0-9]*\).pem/\1/p' | sort -n | tail -1)
d=$(mktemp -d); : >$d/index; echo 01 >$d/serial
printf '[ca]\ndefault_ca=x\n[x]\ndatabase=%s/index\nserial=%s/serial\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nx509_extensions=e\n[p]\ncommonName=supplied\n[e]\nsubjectAltName=DNS:acme.example,DNS:status.acme.example\n' $d $d $d >$d/conf
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $d/ca.key -out $d/ca.pem -days 9 -subj '/CN=an old CA'
openssl req -new -key privkey$n.pem -subj /CN=acme.example -out $d/csr
openssl ca -batch -config $d/conf -cert $d/ca.pem -keyfile $d/ca.key -in $d/csr -notext -out $d/pem \
  -startdate $(date -u -d '85 days ago' +%Y%m%d%H%M%SZ) -enddate $(date -u -d '5 days 1 hour' +%Y%m%d%H%M%SZ)
cp $d/pem cert$n.pem; cp $d/pem fullchain$n.pem
RENEWED_LINEAGE=/etc/letsencrypt/live/acme.example /etc/letsencrypt/renewal-hooks/deploy/lbrun-nginx]])
    serial_at(tool, serial)
    local r = certs "--tags show"
    assert.equal(3, r.exit, r.err)
    assert.matches("issued by .*an old CA.*, ends in 5 days", r.shown)
    assert.matches("acme.example, " .. tool .. ": the certificate ends in 5 days", r.last.warnings[1])
    r = certs()
    assert.equal(0, r.exit, r.err)
    assert.matches("Pebble Intermediate CA.*, ends in 1%d%d%d days", r.shown)
    assert.matches("^http/%S+ [23]", trusted(tool))
  end)

  it("a renewal that nginx cannot read leaves the old certificate in force", function()
    local before = serial_at(tool)
    server:exec "echo 'nonsense;' >/opt/letsbe/nginx/sites/99-broken.conf"
    local r = certs "force=true"
    assert.equal(6, r.exit, r.err)
    assert.matches("nginx does not take the new certificate, the old one stays in force.*99%-broken", r.err .. r.out)
    assert.equal(before, serial_at(tool))
    server:exec "rm /opt/letsbe/nginx/sites/99-broken.conf"
    r = home.json "resume --json"
    assert.equal(0, r.exit, r.err)
    assert.is_true(before ~= serial_at(tool, before))
  end)

  it("by dns-01: a wildcard through the server's own hook, and a warning where there is none", function()
    local _, warned = run { method = "dns-01" }
    assert.matches("dns%-01 needs the program /opt/letsbe/acme/dns%-hook", warned)
    server:exec(([[mkdir -p /opt/letsbe/acme; cat >/opt/letsbe/acme/dns-hook <<'X'
#!/bin/sh
case $1 in
set) d='{"host":"_acme-challenge.'$CERTBOT_DOMAIN'.","value":"'$CERTBOT_VALIDATION'"}' ;;
clear) d='{"host":"_acme-challenge.'$CERTBOT_DOMAIN'."}' ;;
esac
curl -sf -d "$d" http://%s:8055/$1-txt
X
chmod 755 /opt/letsbe/acme/dns-hook]]):format(ca.address))
    local r
    r, warned = run { method = "dns-01" }
    assert.equal("", warned)
    assert.is_true(r.last.changed > 0)
    assert.matches("^http/%S+ [23]", trusted(tool))
    assert.matches("DNS:%*%.acme%.example", server:exec "openssl x509 -noout -ext subjectAltName -in /etc/letsencrypt/live/acme.example/cert.pem")
    assert.equal(0, run({ method = "dns-01" }).last.changed)
  end)
end)

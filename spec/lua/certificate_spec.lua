-- certificate_spec.lua: what is decided about certificates: which names may be ordered, when
-- one is due, what certbot complains of. Orders and renewals are in spec/runbooks/certs_spec.lua.
local crypto = require "crypto"
local script = require "lb.script"
local sources = require "lb.sources"
local support = require "support.lbrun"

local env = script.environment(sources.collect "runbooks/provision.lua")
local certificate, dns = env.certificate, env.dns
local day = 86400

describe("a name of a certificate #unit", function()
  -- What dig prints for two questions, with +comments and +answer.
  local function answer(status, flags, lines)
    return (";; ->>HEADER<<- opcode: QUERY, status: %s, id: 7\n;; flags: %s; QUERY: 1, ANSWER: 1\n%s\n"):format(status, flags, lines or "")
  end
  local addresses = [[
=== addresses
2: eth0    inet 198.51.100.7/24 brd 198.51.100.255 scope global eth0
2: eth0    inet6 2001:DB8::7/64 scope global
3: docker0    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0
]]

  it("leads here when each of its addresses is one of this server's, containers' networks apart", function()
    local mine, found = dns.parse(addresses
      .. "=== name a.example ns1.example.\n" .. answer("NOERROR", "qr aa", "a.example.\t60\tIN\tA\t198.51.100.7")
      .. answer("NOERROR", "qr aa", "a.example.\t60\tIN\tAAAA\t2001:db8::7")
      .. "=== name b.example resolver\n" .. answer("NOERROR", "qr rd ra", "b.example. 60 IN A 198.51.100.7\nb.example. 60 IN A 203.0.113.1")
      .. "=== name c.example resolver\n" .. answer("NOERROR", "qr rd ra", "c.example. 60 IN A 172.17.0.1")
      .. "=== name d.example resolver\n" .. answer("NXDOMAIN", "qr rd ra") .. answer("NXDOMAIN", "qr rd ra")
      .. "=== name e.example resolver\n" .. answer("NOERROR", "qr rd ra") .. answer("NOERROR", "qr rd ra")
      .. "=== name f.example resolver\n" .. answer("SERVFAIL", "qr rd ra") .. answer("SERVFAIL", "qr rd ra")
      .. "=== name g.example resolver\n"
      .. "=== name h.example resolver\nstatus: NOERROR,\ngetent 198.51.100.7\n"
      .. "=== name i.example resolver\n" .. answer("NOERROR", "qr rd ra", "i.example. 60 IN CNAME a.example.\na.example. 60 IN A 198.51.100.7"))
    assert.same({ "198.51.100.7", "2001:db8::7" }, mine)
    assert.equal("ns1.example", found["a.example"].by)
    local function verdict(name)
      local fine, why = dns.leads_here(found[name], mine)
      return fine or why
    end
    local here = "not to this server (198.51.100.7, 2001:db8::7)"
    assert.is_true(verdict "a.example")
    assert.equal("it leads also to 203.0.113.1, " .. here, verdict "b.example")
    assert.equal("it leads to 172.17.0.1, " .. here, verdict "c.example")
    assert.equal("it does not resolve", verdict "d.example")
    assert.equal("it does not resolve", verdict "e.example")
    assert.equal("its name server answers SERVFAIL", verdict "f.example")
    assert.equal("no name server answers for it", verdict "g.example")
    assert.is_true(verdict "h.example")
    assert.is_true(verdict "i.example")
    assert.equal("no name server answers for it", verdict "not.asked")
  end)

  -- A stand-in for dig: ns1 owns the zone, ns2 does not answer, the resolver has stale answers.
  local dig = [[#!/bin/sh
case "$*" in
*'NS example') echo ns2.example.; echo ns1.example.; exit ;;
*'NS none.example') exit ;;
*@ns2.*) echo ';; no servers could be reached'; exit 9 ;;
*@ns1.*' example SOA') flags='qr aa' line='example. 60 IN SOA x' ;;
*@ns1.*new.example*) flags='qr aa' line='new.example. 60 IN A 198.51.100.7' ;;
*@ns1.*alias.example*) flags='qr aa' line='alias.example. 60 IN CNAME new.elsewhere.' ;;
*@ns1.*sub.example*) flags=qr ;;
*new.example*) flags='qr rd ra' status=NXDOMAIN ;;
*alias.example*) flags='qr rd ra' line='new.elsewhere. 60 IN A 198.51.100.7' ;;
*sub.example*) flags='qr rd ra' line='sub.example. 60 IN A 198.51.100.8' ;;
esac
printf ';; ->>HEADER<<- opcode: QUERY, status: %s, id: 1\n;; flags: %s; QUERY: 1\n%s\n' "${status:-NOERROR}" "$flags" "$line"
]]
  local dir
  setup(function()
    dir = support.temp()
    support.spit(dir .. "/dig", dig)
    support.sh("chmod 755 " .. dir .. "/dig")
  end)
  teardown(function() support.sh("rm -rf " .. dir) end)

  local function split(zone, names, url)
    local t = { url = url, run = function(_, text)
      support.spit(dir .. "/script", text)
      return { stdout = support.sh(("PATH=%s:$PATH sh %s/script"):format(dir, dir)) }
    end }
    local here, left = dns.split(t, { zone = zone, names = names, addresses = { "198.51.100.7" } })
    for i, item in ipairs(left) do left[i] = item.name .. ": " .. item.why:gsub(" %(.*", "") end
    return here, left
  end

  it("is asked of the zone's own name server; aliases and zones of their own are followed", function()
    local here, left = split("example", { "new.example", "alias.example", "sub.example" })
    assert.same({ "new.example", "alias.example" }, here)
    assert.same({ "sub.example: it leads to 198.51.100.8, not to this server" }, left)
    here, left = split("example", { "sub.example" }, "ssh://root@198.51.100.8:22")
    assert.same({ { "sub.example" }, {} }, { here, left })
  end)

  it("is asked of the resolver where no name server of the zone answers", function()
    assert.same({ {}, { "new.example: it does not resolve" } }, { split("none.example", { "new.example" }) })
  end)
end)

describe("a CA's certificate #unit", function()
  local clock = 1800000000
  local function have(change)
    local cert = { names = { "acme.example", "status.acme.example" }, server = "https://ca/dir", not_before = clock - 10 * day,
      not_after = clock + 80 * day }
    for k, v in pairs(change or {}) do cert[k] = v end
    return cert
  end
  local function reasons(cert, names)
    return certificate.reasons(cert, { names = names or { "acme.example", "status.acme.example" }, directory = "https://ca/dir" }, clock)
  end

  it("covers its names and one label under its wildcard", function()
    local names = { "acme.example", "*.acme.example" }
    for name, fine in pairs { ["acme.example"] = true, ["status.acme.example"] = true, ["a.b.acme.example"] = false,
        ["notacme.example"] = false, ["example"] = false } do
      assert.equal(fine, certificate.covers(names, name), name)
    end
  end)

  it("is ordered when there is none, for a name it lacks or has no more use for, another directory, or its end", function()
    assert.is_nil(reasons(have()))
    assert.is_nil(reasons(have(), { "acme.example" }))
    assert.equal("there is none", reasons(nil))
    assert.equal("it still names status.acme.example", certificate.reasons(have(), { names = { "acme.example" },
      all = { "acme.example", "new.acme.example" }, directory = "https://ca/dir" }, clock))
    assert.equal("it lacks docs.acme.example", reasons(have(), { "acme.example", "docs.acme.example" }))
    assert.equal("it came from https://staging/dir", reasons(have { server = "https://staging/dir" }))
    assert.equal("it ends in 28 days", reasons(have { not_before = clock - 62 * day, not_after = clock + 28 * day }))
    assert.equal("it has ended", reasons(have { not_after = clock - 1 }))
    local none = have()
    none.server = nil
    assert.equal("certbot does not know how to renew it", reasons(none))
  end)

  it("is due after certbot should have renewed it, late 14 days before its end; a short life has shorter terms", function()
    local function at(life, left)
      local cert = { not_before = clock + (left - life) * day, not_after = clock + left * day }
      return certificate.due(cert, clock), certificate.late(cert, clock)
    end
    assert.same({ false, false }, { at(90, 29) })
    assert.same({ true, false }, { at(90, 28) })
    assert.same({ true, false }, { at(90, 14) })
    assert.same({ true, true }, { at(90, 13) })
    assert.same({ false, false }, { at(6, 2) })
    assert.same({ true, true }, { at(6, 1) })
  end)

  it("that certbot could not get is complained of in one line", function()
    assert.equal("a.example: 192.0.2.1: Fetching http://a.example/x: Timeout; b.example: Invalid response", certificate.complaint [[
Saving debug log to /var/log/letsencrypt/letsencrypt.log
Requesting a certificate for a.example and b.example

Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: a.example
  Type:   connection
  Detail: 192.0.2.1: Fetching http://a.example/x: Timeout

  Domain: b.example
  Type:   unauthorized
  Detail: Invalid response

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org.]])
    assert.equal("Error creating new order :: too many certificates already issued", certificate.complaint [[
Saving debug log to /var/log/letsencrypt/letsencrypt.log
An unexpected error occurred:
Error creating new order :: too many certificates already issued
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile.]])
    assert.equal("certbot says nothing", certificate.complaint "\n")
  end)

  local function serving(cert, name, now)
    local t = { run = function(_, text) return { stdout = text:find("/live/acme.example/fullchain.pem", 1, true) and cert or "" } end }
    return certificate.serving({ target = t, facts = { clock = now } }, "acme.example", name)
  end

  it("is shown for what it covers while it lasts, and is trusted only when somebody else has signed it", function()
    local made = crypto.self_signed { names = { "acme.example", "status.acme.example" }, days = 10 }
    local now = crypto.certificate(made.cert).not_before + day
    assert.same({ certificate = "/etc/letsencrypt/live/acme.example/fullchain.pem",
      key = "/etc/letsencrypt/live/acme.example/privkey.pem", trusted = false }, serving(made.cert, "status.acme.example", now))
    local fallback = "/etc/nginx/lbrun/fallback.pem"
    for _, case in ipairs { { made.cert, "docs.acme.example", now }, { made.cert, "acme.example", now + 10 * day },
        { "garbage", "acme.example", now }, { "", "acme.example", now } } do
      assert.same({ certificate = fallback, key = fallback, trusted = false }, serving(table.unpack(case, 1, 3)))
    end
    local dir = support.temp()
    support.sh(([[cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 30 -subj '/CN=(STAGING) Root' 2>/dev/null
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout real.key -out real.pem -days 30 -subj '/CN=Root' 2>/dev/null
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout k -out r -subj /CN=acme.example 2>/dev/null; echo subjectAltName=DNS:acme.example >e
openssl x509 -req -in r -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile e -out staging.pem 2>/dev/null
openssl x509 -req -in r -CA real.pem -CAkey real.key -CAcreateserial -days 30 -extfile e -out fine.pem 2>/dev/null]]):format(dir))
    assert.is_true(serving(support.slurp(dir .. "/fine.pem"), "acme.example", now).trusted)
    assert.is_false(serving(support.slurp(dir .. "/staging.pem"), "acme.example", now).trusted)
    support.sh("rm -rf " .. dir)
  end)

  it("is read by the container that nginx.lua knows, and marked where it looks", function()
    local hook = support.slurp "templates/nginx/deploy-hook.sh"
    for name, value in pairs { container = env.nginx.container, config = env.nginx.config, marks = env.nginx.dir .. "/.loaded" } do
      assert.equal(value, hook:match("\n" .. name .. "=(%S+)\n"))
    end
  end)

  it("is ordered by no other method than http-01 and dns-01", function()
    for _, change in ipairs { { method = "tls-alpn-01" }, { hook = "/bin/sh -c x" }, { domain = 7 } } do
      local given = { domain = "acme.example", names = { "acme.example" }, method = "dns-01", directory = "https://ca/dir" }
      assert.truthy(certificate.acme(given))
      for k, v in pairs(change) do given[k] = v end
      assert.has_error(function() certificate.acme(given) end)
    end
    assert.has_error(function() certificate.renewer { ca = true } end)
  end)
end)
